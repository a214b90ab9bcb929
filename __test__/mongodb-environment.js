"use strict";

const { MongoClient } = require("mongodb");
const { TestEnvironment } = require("jest-environment-node");

/** The databases that the suites create, in addition to those of their backends. */
const OF_TESTS = ["custom-user-data-database", "app", "d", "db", "example"];

/**
 * The environment of suites that run on MongoDB. Its global `databases` gives access to the
 * server's databases. A suite cannot load the driver itself: the driver does not recognize the
 * `Map` of the suite's realm.
 */
class MongoEnvironment extends TestEnvironment {
  async setup() {
    await super.setup();
    const uri = process.env.MONGODB_URI;
    if (!uri) {
      throw new Error(
        "MONGODB_URI names no MongoDB-compatible server: `npm test` starts one, or scripts/test-server.mjs",
      );
    }
    this.client = new MongoClient(uri, { serverSelectionTimeoutMS: 5000 });
    const names = async () => {
      const { databases } = await this.client.db("admin").command({ listDatabases: 1, nameOnly: true });
      return databases.map(({ name }) => name);
    };
    const before = new Set(await names());
    this.dropOwn = async () => {
      for (const name of await names()) {
        // Leaves databases that existed before the suite alone, whatever their names.
        if (!before.has(name) && (OF_TESTS.includes(name) || name.startsWith("userkeep_"))) {
          await this.client.db(name).dropDatabase();
        }
      }
    };
    this.global.databases = {
      names,
      dropOwn: this.dropOwn,
      command: (name, command) => this.client.db(name).command(command),
    };
  }

  async teardown() {
    await this.dropOwn?.();
    await this.client?.close();
    await super.teardown();
  }
}

module.exports = MongoEnvironment;

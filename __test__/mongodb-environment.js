"use strict";

const { MongoClient } = require("mongodb");
const { TestEnvironment } = require("jest-environment-node");

/** The databases of the suites, beside those of the backends in them. */
const OF_TESTS = ["custom-user-data-database", "app", "d", "db", "example"];

/**
 * The environment of suites that run on MongoDB: it gives them `databases`, which knows the databases of the server. (The
 * driver cannot be loaded by a suite itself: it takes the `Map` of a suite's realm for none.)
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
        // What was there before the suite is somebody's, whatever it is called.
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

"use strict";

const { MongoClient } = require("mongodb");
const { TestEnvironment } = require("jest-environment-node");

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
    this.global.databases = {
      names: async () => {
        const { databases } = await this.client.db("admin").command({ listDatabases: 1, nameOnly: true });
        return databases.map(({ name }) => name);
      },
      drop: (name) => this.client.db(name).dropDatabase(),
      command: (name, command) => this.client.db(name).command(command),
    };
  }

  async teardown() {
    await this.client?.close();
    await super.teardown();
  }
}

module.exports = MongoEnvironment;

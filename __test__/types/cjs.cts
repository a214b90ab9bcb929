// Compiled, not run: the types of the package in a CommonJS program.
import Realm = require("userkeep");

const app: Realm.App = new Realm.App("app");
const user: Realm.User | null = app.currentUser;
const error: Realm.AppError = Object.assign(new Error("unauthorized"), { code: 4349, errorCode: "InvalidPassword" });
const mode: Realm.MetadataMode = Realm.MetadataMode.InMemory;
const id: Realm.BSON.ObjectId = Realm.BSON.ObjectID("63c1b2a1f0e1d2c3b4a59687");
// @ts-expect-error: unknown mode
const wrong: Realm.MetadataMode = "sometimes";

export = { app, user, error, mode, id, wrong };

import Realm = require("userkeep");

export = Realm;

"use strict";

module.exports = require("userkeep");

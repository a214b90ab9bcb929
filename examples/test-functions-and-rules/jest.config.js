"use strict";

module.exports = { testEnvironment: "node" };

"use strict";

require("userkeep/experimental/base-url");

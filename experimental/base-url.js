"use strict";

// The SDK adds `app.baseUrl` and `app.updateBaseUrl()` in this module. Apps here always have them.

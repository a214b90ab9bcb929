"use strict";

// In the SDK, this module adds `app.baseUrl` and `app.updateBaseUrl()`. Userkeep's apps always
// have them.

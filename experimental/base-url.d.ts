// Apps have `baseUrl` and `updateBaseUrl()` without this module, which the SDK needs for them.
export {};

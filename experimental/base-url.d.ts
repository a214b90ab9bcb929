// In the SDK, this module adds `baseUrl` and `updateBaseUrl()`. Userkeep's apps always have them.
export {};

import Realm from "./index.js";

export default Realm;
export const {
  App,
  AssertionError,
  Auth,
  BSON,
  Credentials,
  MetadataMode,
  MongoDB,
  ProviderType,
  PushClient,
  Services,
  TypeAssertionError,
  User,
  UserState,
  flags,
  openBackend,
  serve,
} = Realm;

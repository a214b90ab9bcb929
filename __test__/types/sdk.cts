// Compiled, not run: the names of `realm` 12 in a CommonJS program, by each form of import.
import Realm = require("userkeep");

import type DefaultRealm from "userkeep";
import * as Namespace from "userkeep";
import {
  App,
  BSON,
  Credentials,
  MetadataMode,
  type Realm as NamedRealm,
  ProviderType,
  type default as RealmByDefault,
  setLogLevel,
  type User,
  UserState,
} from "userkeep";

import "userkeep/experimental/base-url";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_T extends true>(): void {}

same<Equal<NamedRealm.User, Realm.User>>();
same<Equal<DefaultRealm.User, Realm.User>>();
same<Equal<RealmByDefault.User, Realm.User>>();
same<Equal<Namespace.User, Realm.User>>();
same<Equal<Realm.Realm.User, Realm.User>>();
same<Equal<Realm.default.User, Realm.User>>();
same<Equal<globalThis.Realm.User, Realm.User>>();
same<Equal<User, Realm.User>>();
same<Equal<typeof NamedRealm, typeof Realm>>();
same<Equal<typeof Realm.default, typeof Realm>>();

const app: Realm.App = new App("app");
const other: NamedRealm.App = new Namespace.App({ id: "app", app: { name: "n", version: "1" } });
const url: string = app.baseUrl;
app.updateBaseUrl(null).then(() => url);
// @ts-expect-error: baseUrl is read-only
app.baseUrl = "http://localhost";

// Enumerations and their members are types; the values of members are accepted too.
const state: UserState.LoggedIn = UserState.LoggedIn;
const anyState: Realm.UserState = state;
const provider: Realm.ProviderType.AnonUser = ProviderType.AnonUser;
const mode: MetadataMode.InMemory = MetadataMode.InMemory;
const metadata: Realm.Metadata = { mode: "noEncryption" };
// @ts-expect-error: a different member
const wrong: UserState.LoggedOut = UserState.LoggedIn;
const exhaustive = (value: Realm.ClientResetMode): value is Realm.ClientResetMode.Manual =>
  value === Realm.ClientResetMode.Manual;

// The classes for authentication and for MongoDB, by all their names.
same<Equal<Realm.EmailPasswordAuth, Realm.Auth.EmailPasswordAuth>>();
same<Equal<Realm.ApiKeyAuth, Realm.Auth.ApiKeyAuth>>();
same<Equal<Realm.Auth.ApiKey, Realm.ApiKey>>();
same<Equal<Realm.MongoDBCollection<Plant>, Realm.Services.MongoDB.MongoDBCollection<Plant>>>();
same<Equal<Realm.App.Credentials, Realm.Credentials>>();
type Plant = { _id: BSON.ObjectId; name: string };
const service: Realm.Services.MongoDB = (app.currentUser as User).mongoClient("mongodb-atlas");
const database: Realm.Services.MongoDBDatabase = service.db("example");
const plants: Realm.Services.MongoDB.MongoDBCollection<Plant> = database.collection<Plant>("plants");
const byIds: Realm.WatchOptionsIds<Plant> = { ids: [new BSON.ObjectId()] };
const byFilter: Realm.WatchOptionsFilter = { filter: { operationType: "insert" } };
plants.watch(byIds);
plants.watch(byFilter);
const local: Realm.LocalAppConfiguration = { name: "n" };
const auth: Realm.EmailPasswordAuth = app.emailPasswordAuth;
const credentials: Realm.App.Credentials = Credentials.anonymous();

// The log.
setLogLevel("trace");
Realm.setLogLevel("off", "Realm.App");
Realm.setLogLevel(Realm.NumericLogLevel.Debug);
// @ts-expect-error: unknown level
Realm.setLogLevel("loud");
// @ts-expect-error: unknown category
Realm.setLogLevel("info", "Userkeep");
Realm.setLogger(({ category, level, message }) => {
  same<Equal<typeof category, Realm.LogCategory>>();
  same<Equal<typeof level, Realm.App.Sync.LogLevel>>();
  console.log(message);
});
Realm.setLogger((level: Realm.App.Sync.LogLevel, message: string) => console.log(level, message));
const logger: Realm.Logger = (level, message) => console.log(Realm.NumericLogLevel[level], message);
Realm.flags.THROW_ON_GLOBAL_REALM = true;

// Programs that use the Realm database compile.
class Task extends Realm.Object<Task, "name"> {
  _id!: Realm.BSON.ObjectId;
  name!: string;
  tags!: Realm.List<string>;
  labels!: Realm.Dictionary<string>;
  owners!: Realm.Set<string>;
  visits!: Realm.Types.Counter;
  due?: Realm.Types.Date;
  static schema: Realm.ObjectSchema = {
    name: "Task",
    primaryKey: "_id",
    properties: { _id: "objectId", name: "string", tags: "string[]", due: { type: "date", optional: true } },
  };
}
const configuration: Realm.Configuration = { schema: [Task], schemaVersion: 1 };
async function useDatabase(): Promise<void> {
  const realm: Realm = await Realm.open(configuration).progress((estimate: number) => console.log(estimate));
  const task = realm.write(() => realm.create(Task, { name: "n", tags: ["a"] }, Realm.UpdateMode.Modified));
  const tasks: Realm.Results<Task> = realm.objects(Task).filtered("name == $0", "n").sorted("name", true);
  const names: string[] = tasks.map(({ name }) => name);
  task.addListener((object, { deleted }) => console.log(object.name, deleted, names, tasks[0]?.tags.length));
  const made = new Task(realm, { name: "n" });
  // @ts-expect-error: a required property is missing
  new Task(realm, {});
  Realm.App.Sync.getAllSyncSessions(app.currentUser as Realm.User).map(({ state }) => state);
  const subscription: Realm.App.Sync.Subscription | null = realm.subscriptions.findByName("s");
  new Realm({ inMemory: true }).close();
  console.log(made, subscription);
}

/** Every type of `realm` 12, by its name. */
type Types = [
  Realm.AnyCollection,
  Realm.AnyDictionary,
  Realm.AnyList,
  Realm.AnyRealmObject,
  Realm.AnyResults,
  Realm.AnySet,
  Realm.AnyUser,
  Realm.ApiKey,
  Realm.AppChangeCallback,
  Realm.AppConfiguration,
  Realm.AppServicesFunction<void, []>,
  Realm.AssertionError,
  Realm.BaseConfiguration,
  Realm.BaseObjectSchema,
  Realm.BaseSyncConfiguration,
  Realm.CanonicalGeoPoint,
  Realm.CanonicalGeoPolygon,
  Realm.CanonicalObjectSchema,
  Realm.CanonicalObjectSchemaProperty,
  Realm.CanonicalPropertiesTypes,
  Realm.CanonicalPropertySchema,
  Realm.ClientResetAfterCallback,
  Realm.ClientResetBeforeCallback,
  Realm.ClientResetConfig,
  Realm.ClientResetDiscardUnsyncedChangesConfiguration,
  Realm.ClientResetError,
  Realm.ClientResetFallbackCallback,
  Realm.ClientResetManualConfiguration,
  Realm.ClientResetMode,
  Realm.ClientResetRecoverOrDiscardUnsyncedChangesConfiguration,
  Realm.ClientResetRecoverUnsyncedChangesConfiguration,
  Realm.ClientResetRecoveryConfiguration,
  Realm.Collection,
  Realm.CollectionChangeCallback,
  Realm.CollectionChangeSet,
  Realm.CollectionPropertyTypeName,
  Realm.CompensatingWriteError,
  Realm.CompensatingWriteInfo,
  Realm.Configuration,
  Realm.ConfigurationWithSync,
  Realm.ConfigurationWithoutSync,
  Realm.ConnectionNotificationCallback,
  Realm.ConnectionState,
  Realm.Counter,
  Realm.Credentials,
  Realm.DefaultFunctionsFactory,
  Realm.DefaultUserProfileData,
  Realm.Dictionary,
  Realm.DictionaryChangeCallback,
  Realm.DictionaryChangeSet,
  Realm.ErrorCallback,
  Realm.EstimateProgressNotificationCallback,
  Realm.FlexibleSyncConfiguration,
  Realm.GeoBox,
  Realm.GeoCircle,
  Realm.GeoPoint,
  Realm.GeoPolygon,
  Realm.GeoPosition,
  Realm.IndexDecorator,
  Realm.IndexedType,
  Realm.InitialSubscriptions,
  Realm.List,
  Realm.LocalAppConfiguration,
  Realm.LogCategory,
  Realm.LogEntry,
  Realm.Logger,
  Realm.LoggerCallback,
  Realm.LoggerCallback1,
  Realm.LoggerCallback2,
  Realm.MapToDecorator,
  Realm.Metadata,
  Realm.MetadataMode,
  Realm.MigrationCallback,
  Realm.MigrationOptions,
  Realm.Mixed,
  Realm.MongoDB.Document,
  Realm.MongoDBService,
  Realm.NumericLogLevel,
  Realm.Object,
  Realm.ObjectChangeCallback<Task>,
  Realm.ObjectChangeSet<Task>,
  Realm.ObjectClass,
  Realm.ObjectSchema,
  Realm.ObjectSchemaProperty,
  Realm.ObjectType,
  Realm.OpenRealmBehaviorConfiguration,
  Realm.OpenRealmBehaviorType,
  Realm.OpenRealmTimeOutBehavior,
  Realm.OrderedCollection,
  Realm.PartitionBasedSyncProgressNotificationCallback,
  Realm.PartitionSyncConfiguration,
  Realm.PresentationPropertyTypeName,
  Realm.PrimaryKey,
  Realm.PrimitivePropertyTypeName,
  Realm.ProgressDirection,
  Realm.ProgressMode,
  Realm.ProgressNotificationCallback,
  Realm.ProgressRealmPromise,
  Realm.PropertiesTypes,
  Realm.PropertySchema,
  Realm.PropertySchemaCommon,
  Realm.PropertySchemaParseError,
  Realm.PropertySchemaShorthand,
  Realm.PropertySchemaStrict,
  Realm.PropertyType,
  Realm.PropertyTypeName,
  Realm.ProviderType,
  Realm.ProxyType,
  Realm.PushClient,
  Realm.RealmEvent,
  Realm.RealmEventName,
  Realm.RealmFunction<void, []>,
  Realm.RealmListenerCallback,
  Realm.RealmObjectConstructor,
  Realm.RelationshipPropertyTypeName,
  Realm.Results,
  Realm.SSLConfiguration,
  Realm.SSLVerifyCallback,
  Realm.SSLVerifyObject,
  Realm.SchemaParseError,
  Realm.SecretApiKey,
  Realm.Services.Push,
  Realm.SessionState,
  Realm.SessionStopPolicy,
  Realm.Set,
  Realm.ShorthandPrimitivePropertyTypeName,
  Realm.SortDescriptor,
  Realm.SubscriptionSetState,
  Realm.SyncConfiguration,
  Realm.SyncError,
  Realm.SyncProxyConfig,
  Realm.TypeAssertionError,
  Realm.Types.LinkingObjects<Task, "tasks">,
  Realm.Unmanaged<Task>,
  Realm.UpdateMode,
  Realm.User,
  Realm.UserChangeCallback,
  Realm.UserIdentity,
  Realm.UserState,
  Realm.UserTypeName,
  Realm.WaitForSync,
  Realm.WatchOptionsFilter,
  Realm.WatchOptionsIds<Plant>,
];
const types: Types | undefined = undefined;

export = {
  anyState,
  auth,
  credentials,
  exhaustive,
  local,
  logger,
  metadata,
  mode,
  other,
  provider,
  types,
  useDatabase,
  wrong,
};

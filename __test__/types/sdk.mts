// Compiled, not run: the names of `realm` 12 in an ES module, by each form of import.

import type DefaultRealm from "userkeep";
import * as Namespace from "userkeep";
import {
  type ApiKeyAuth,
  App,
  type Auth,
  type BSON,
  type Configuration,
  Credentials,
  type EmailPasswordAuth,
  type LocalAppConfiguration,
  MetadataMode,
  type MongoDBCollection,
  NumericLogLevel,
  type ObjectSchema,
  open,
  ProviderType,
  type Realm,
  Object as RealmObject,
  type Set as RealmSet,
  type Results,
  type Services,
  setLogger,
  setLogLevel,
  shutdown,
  type Types,
  UpdateMode,
  type User,
  UserState,
  type WatchOptionsFilter,
  type WatchOptionsIds,
} from "userkeep";

import "userkeep/experimental/base-url";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_T extends true>(): void {}

same<Equal<typeof DefaultRealm, typeof Realm>>();
same<Equal<DefaultRealm.User, Realm.User>>();
same<Equal<Namespace.User, Realm.User>>();
same<Equal<Namespace.Realm.User, Realm.User>>();
same<Equal<Namespace.default.User, Realm.User>>();
same<Equal<globalThis.Realm.User, Realm.User>>();
same<Equal<EmailPasswordAuth, Auth.EmailPasswordAuth>>();
same<Equal<ApiKeyAuth, Realm.Auth.ApiKeyAuth>>();
same<Equal<Auth.ApiKey, Realm.ApiKey>>();

type Plant = { _id: BSON.ObjectId; name: string };
same<Equal<MongoDBCollection<Plant>, Services.MongoDB.MongoDBCollection<Plant>>>();
const app: App = new App({ id: "app", metadata: { mode: MetadataMode.InMemory } });
const user: User = await app.logIn(Credentials.anonymous());
const service: Services.MongoDB = user.mongoClient("mongodb-atlas");
const plants: MongoDBCollection<Plant> = service.db("example").collection<Plant>("plants");
const byIds: WatchOptionsIds<Plant> = { ids: [] };
const byFilter: WatchOptionsFilter = { filter: {} };
plants.watch(byIds);
plants.watch(byFilter);

const state: UserState.Removed = UserState.Removed;
const mode: MetadataMode = MetadataMode.Encryption;
const provider: ProviderType.ApiKey = ProviderType.ApiKey;
const local: LocalAppConfiguration = {};

class Task extends RealmObject<Task> {
  name!: Types.String;
  owners!: RealmSet<string>;
  static schema: ObjectSchema = { name: "Task", properties: { name: "string" } };
}
const configuration: Configuration = { schema: [Task] };
const tasks: Results<Task> = (await open(configuration)).objects(Task);
(await Namespace.open()).create("Task", { name: "n" }, UpdateMode.All);

setLogLevel(NumericLogLevel.All, "Realm");
Namespace.setLogLevel("fatal");
setLogger((entry) => console.log(entry.category, entry.level, entry.message));
await shutdown();

export { local, mode, provider, state, tasks };

"use strict";

// Classes such as `Buffer` and `URL` belong to the whole thread. Properties that a function stores
// on them are removed after its call. Packages may extend them while they are loaded.

/** The properties of the objects that functions have used, by object. */
const snapshots = new Map();

let isWatching = false;

/**
 * Values of BSON lead to these objects, so that code which merges a user's fields carelessly can
 * add properties to them. Such properties are enumerable.
 */
const REACHABLE = [Buffer, Buffer.prototype];

/** The numbers of their enumerable properties. */
let reachableKeys = [];

const countReachable = () => REACHABLE.map((object) => Object.keys(object).length);

/** Lets this thread take changes of shared objects back. Only for a thread of its own. */
function watchShared() {
  isWatching = true;
  remember(Buffer);
  reachableKeys = countReachable();
}

const propertiesOf = (object) =>
  new Map(Reflect.ownKeys(object).map((key) => [key, Object.getOwnPropertyDescriptor(object, key)]));

const isObject = (value) => (typeof value === "object" || typeof value === "function") && value !== null;

/** Remembers the properties of an object and of its prototype. */
function remember(value) {
  if (!isWatching || !isObject(value) || snapshots.has(value)) {
    return;
  }
  for (const object of [value, value.prototype].filter(isObject)) {
    snapshots.set(object, propertiesOf(object));
  }
}

/** Loads a package, whose changes of shared objects are kept. */
function keepingChanges(load) {
  try {
    return load();
  } finally {
    for (const object of snapshots.keys()) {
      snapshots.set(object, propertiesOf(object));
    }
    reachableKeys = countReachable();
  }
}

/** Finds new and deleted properties and changed values. Changed accessors need a full check. */
function isChanged(object, properties) {
  if (Reflect.ownKeys(object).length !== properties.size) {
    return true;
  }
  for (const [key, before] of properties) {
    if (before.writable === true && object[key] !== before.value && !Number.isNaN(before.value)) {
      return true;
    }
  }
  return false;
}

function restoreObject(object, properties) {
  for (const key of Reflect.ownKeys(object)) {
    if (!properties.has(key)) {
      Reflect.deleteProperty(object, key);
    }
  }
  for (const [key, before] of properties) {
    Reflect.defineProperty(object, key, before);
  }
}

/** Takes the changes of objects back that a call has used. */
function restoreShared(values, isFull) {
  for (const value of values) {
    for (const object of [value, value?.prototype]) {
      const properties = snapshots.get(object);
      if (properties !== undefined && (isFull || isChanged(object, properties))) {
        restoreObject(object, properties);
      }
    }
  }
  for (const [index, count] of reachableKeys.entries()) {
    const object = REACHABLE[index];
    if (Object.keys(object).length !== count) {
      restoreObject(object, snapshots.get(object));
    }
  }
}

module.exports = { keepingChanges, remember, restoreShared, watchShared };

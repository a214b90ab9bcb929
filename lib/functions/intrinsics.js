"use strict";

const vm = require("node:vm");
const { withoutGuard } = require("./memory.js");

// A context is used again only if the call has changed neither its global object nor its built-in
// objects. A comparison of about 1200 properties by name takes too long for each call, so the
// comparisons are generated as code, whose property accesses the engine caches. It finds changed
// values and new enumerable properties. New properties that are not enumerable, changed
// accessors and changed prototypes need calls like `Object.defineProperty`. Those are found by
// a full check, which follows calls of sources that mention such a call.

/**
 * Lists the objects to compare, with their properties. Compiled in each context, so it must not
 * refer to anything outside itself. The engine does not cache accesses of a guard, which is a
 * `Proxy`, so the constructor behind it is compared.
 */
function listObjects(shared, withoutGuard) {
  const { getOwnPropertyDescriptor, getPrototypeOf } = Object;
  const objects = [];
  const seen = new Set(shared);
  const add = (value) => {
    if ((typeof value === "object" || typeof value === "function") && value !== null && !seen.has(value)) {
      seen.add(value);
      objects.push(withoutGuard(value));
      add(value.prototype);
      add(getPrototypeOf(value));
    }
  };
  add(globalThis);
  for (const key of Reflect.ownKeys(globalThis)) {
    add(getOwnPropertyDescriptor(globalThis, key).value);
  }
  for (const namespace of [globalThis.Intl ?? {}, globalThis.WebAssembly ?? {}]) {
    for (const key of Reflect.ownKeys(namespace)) {
      add(namespace[key]);
    }
  }
  const iterators = [[].values(), new Map().values(), new Set().values(), ""[Symbol.iterator](), "".matchAll(/a/g)];
  const functions = [function* () {}, async function* () {}, async () => {}];
  for (const value of [...iterators, ...functions, new Uint8Array(0)]) {
    add(getPrototypeOf(value));
  }
  return objects.map((object) => {
    const names = Reflect.ownKeys(object);
    const descriptors = names.map((name) => getOwnPropertyDescriptor(object, name));
    const keys = Object.keys(object).length;
    let hasEnumerable = false;
    for (const _name in object) {
      hasEnumerable = true;
    }
    const isExtensible = Object.isExtensible(object);
    return { object, names, descriptors, keys, hasEnumerable, isExtensible, prototype: getPrototypeOf(object) };
  });
}

const NAME = /^[A-Za-z_$][\w$]*$/;

/** Returns the comparisons of one object's properties as source text. */
function comparisons({ names, descriptors, keys, hasEnumerable, isExtensible }) {
  const terms = [];
  for (const [index, name] of names.entries()) {
    const { writable } = descriptors[index];
    if (writable !== true || (typeof name === "string" && name === "globalThis")) {
      continue;
    }
    if (typeof name === "symbol") {
      terms.push(`o[n[${index}]] === v[${index}]`);
    } else {
      terms.push(`o${NAME.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`} === v[${index}]`);
    }
  }
  // The loop is the faster check, but it also finds properties of the prototypes.
  const added = hasEnumerable
    ? `if (keys(o).length !== ${keys}) return false;`
    : "for (const k in o) { return false; }";
  // Frozen objects are not extensible either.
  const frozen = isExtensible ? "if (!isExtensible(o)) return false;" : "";
  return `(o, v, n) => {\n  ${frozen}\n  ${added}\n  return ${terms.join(" &&\n    ") || "true"};\n}`;
}

let listScript;
/** The scripts of comparisons, by the lists of names. There is one unless contexts differ. */
const checkScripts = new Map();

function checkScript(list) {
  const functions = list.map(comparisons);
  const source = `(({ keys, isExtensible }) => [${functions.join(",\n")}])(Object)`;
  if (!checkScripts.has(source)) {
    checkScripts.set(source, new vm.Script(source, { filename: __filename }));
  }
  return checkScripts.get(source);
}

function isUnchanged({ object, names, descriptors, prototype }) {
  if (Reflect.ownKeys(object).length !== names.length || Object.getPrototypeOf(object) !== prototype) {
    return false;
  }
  return names.every((name, index) => {
    const now = Object.getOwnPropertyDescriptor(object, name);
    const before = descriptors[index];
    return now !== undefined && Object.is(now.value, before.value) && now.get === before.get && now.set === before.set;
  });
}

/** Compares the built-in objects of a context with those of its creation. */
class IntrinsicsCheck {
  #list;
  #checks;

  /** `shared` are objects that belong to all contexts. */
  constructor(context, shared) {
    listScript ??= new vm.Script(`(${listObjects})`, { filename: __filename });
    this.#list = listScript.runInContext(context)(shared, withoutGuard);
    const functions = checkScript(this.#list).runInContext(context);
    this.#checks = this.#list.map(({ object, names, descriptors }, index) => {
      const values = descriptors.map(({ value }) => value);
      return { check: functions[index], object, values, names };
    });
  }

  /** Returns true if no built-in object has changed. */
  passes(isFull) {
    try {
      for (const { check, object, values, names } of this.#checks) {
        if (!check(object, values, names)) {
          return false;
        }
      }
      return !isFull || this.#list.every(isUnchanged);
    } catch {
      // A deleted or replaced function of the comparison itself.
      return false;
    }
  }
}

module.exports = { IntrinsicsCheck };

"use strict";

// The memory limit of a thread for buffers. V8 limits only its own heap, and a loop that allocates
// buffers never yields, so the allocations themselves are counted.

const { types } = require("node:util");
const v8 = require("node:v8");
const vm = require("node:vm");

/** The exit code of a thread that ended itself because of its memory limit. */
const MEMORY_EXIT_CODE = 86;

/** The number of bytes between two measurements. */
const STEP = 16 * 1024 * 1024;

const MB = 1024 * 1024;

const CONSTRUCTORS = [
  "ArrayBuffer",
  "SharedArrayBuffer",
  "Int8Array",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
];

/** The guard of this thread, if it has a limit. */
let guard;

/** Counts the bytes of buffers, and calls `exceeded` beyond a limit. */
class MemoryGuard {
  #limit;
  #exceeded;
  #since = 0;
  #collect;

  constructor(limit, exceeded) {
    this.#limit = limit;
    this.#exceeded = exceeded;
  }

  /** Notes an allocation that is about to happen. */
  note(bytes) {
    this.#since += bytes;
    if (this.#since >= STEP) {
      this.#since = 0;
      this.check(bytes);
    }
  }

  check(more = 0) {
    const isOver = () => process.memoryUsage().arrayBuffers + more > this.#limit;
    if (isOver()) {
      // The buffers may be garbage that has not been collected yet.
      this.#collector()();
      if (isOver()) {
        this.#exceeded();
      }
    }
  }

  #collector() {
    if (this.#collect === undefined) {
      v8.setFlagsFromString("--expose-gc");
      this.#collect = vm.runInNewContext("gc");
    }
    return this.#collect;
  }
}

/** Returns the size in bytes of what a constructor or `Buffer.alloc` is about to allocate. */
const sizeOf = (first, unit = 1) =>
  typeof first === "number" ? first * unit : (first?.byteLength ?? (first?.length ?? 0) * unit);

/** The constructors behind their guards. */
const guardedBy = new WeakMap();

/** Returns the constructor behind a guard, which has its properties, or a value as it is. */
const withoutGuard = (value) => guardedBy.get(value) ?? value;

/** Replaces a constructor of a global object by one that counts its allocations. */
function guardClass(global, name) {
  const Class = global[name];
  const unit = Class.BYTES_PER_ELEMENT ?? 1;
  const guardOfClass = new Proxy(Class, {
    construct(target, args, newTarget) {
      // A view of a buffer allocates nothing.
      if (!types.isAnyArrayBuffer(args[0])) {
        guard.note(sizeOf(args[0], unit));
      }
      return Reflect.construct(target, args, newTarget);
    },
  });
  guardedBy.set(guardOfClass, Class);
  const descriptor = { value: guardOfClass, writable: true, configurable: true };
  Object.defineProperty(global, name, descriptor);
  // Methods such as `slice` and `map` allocate with the constructor of their object.
  Object.defineProperty(Class.prototype, "constructor", descriptor);
}

function guardBuffer() {
  for (const name of ["alloc", "allocUnsafe", "allocUnsafeSlow", "from"]) {
    const allocate = Buffer[name];
    Buffer[name] = function (first, ...rest) {
      guard.note(sizeOf(first));
      return allocate.call(this, first, ...rest);
    };
  }
  const { concat } = Buffer;
  Buffer.concat = function (list, ...rest) {
    guard.note(Array.isArray(list) ? list.reduce((size, item) => size + (item?.length ?? 0), 0) : 0);
    return concat.call(this, list, ...rest);
  };
}

/**
 * Limits the memory of this thread for buffers, in MB. Beyond the limit, `exceeded` is called,
 * which must end the thread.
 */
function limitMemory(limit, exceeded) {
  guard = new MemoryGuard(limit * MB, exceeded);
  guardBuffer();
  guardContext(globalThis);
}

/** Lets the guard count the buffers that the code of a context creates. */
function guardContext(global) {
  if (guard === undefined) {
    return;
  }
  for (const name of CONSTRUCTORS) {
    // Contexts share some constructors with the thread, which has guarded them.
    if (!guardedBy.has(global[name])) {
      guardClass(global, name);
    }
  }
}

module.exports = { MEMORY_EXIT_CODE, guardContext, limitMemory, withoutGuard };

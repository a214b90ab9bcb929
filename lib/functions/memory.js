"use strict";

// The memory limit of a thread for buffers. V8 limits only its own heap. The thread measures the
// memory outside the heap while calls run and after them. A loop that allocates buffers never
// yields, so the common allocations are counted as well, and cause measurements themselves.

const crypto = require("node:crypto");
const v8 = require("node:v8");
const { types } = require("node:util");
const vm = require("node:vm");

/** The exit code of a thread that ended itself because of its memory limit. */
const MEMORY_EXIT_CODE = 86;

/** The number of bytes between two measurements. */
const STEP = 16 * 1024 * 1024;

const MB = 1024 * 1024;

/** The number of milliseconds between two measurements while calls run. */
const INTERVAL = 100;

/** The minimum number of milliseconds between the measurements after calls. */
const PAUSE = 5;

/** The size in bytes from which `Buffer#toString` creates strings outside the heap. */
const LARGE_TEXT = 512 * 1024;

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
  #calls = 0;
  #timer;
  #measured = 0;

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

  /** Notes the beginning of a call. */
  begin() {
    this.#calls += 1;
    // The timer stops itself: to start one for each call takes longer.
    this.#timer ??= setInterval(() => this.#tick(), INTERVAL).unref();
  }

  /** Notes the end of a call. */
  end() {
    this.#calls -= 1;
    if (performance.now() - this.#measured > PAUSE) {
      this.check();
    }
  }

  #tick() {
    this.check();
    if (this.#calls === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  check(more = 0) {
    // This includes the buffers and the memory of WebAssembly. `process.memoryUsage()` is slower.
    const isOver = () => v8.getHeapStatistics().external_memory + more > this.#limit;
    this.#measured = performance.now();
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

/** Counts the allocations of a constructor, also those of its `from` and `of`. */
function guarded(Class) {
  const unit = Class.BYTES_PER_ELEMENT ?? 1;
  const proxy = new Proxy(Class, {
    construct(target, args, newTarget) {
      // A view of a buffer allocates nothing.
      if (!types.isAnyArrayBuffer(args[0])) {
        guard.note(sizeOf(args[0], unit));
      }
      return Reflect.construct(target, args, newTarget);
    },
  });
  guardedBy.set(proxy, Class);
  return proxy;
}

/** Lets a method note `size(this, args)` bytes before it runs. */
function guardMethod(object, name, size) {
  const method = object[name];
  if (typeof method !== "function") {
    return;
  }
  const value = function (...args) {
    guard.note(size(this, args) || 0);
    return Reflect.apply(method, this, args);
  };
  Object.defineProperty(object, name, { value, writable: true, enumerable: false, configurable: true });
}

const ownSize = ({ byteLength }) => byteLength;

/** Replaces the constructors of a global object, and their methods that return copies. */
function guardGlobal(global) {
  const copies = ["slice", "map", "filter", "toReversed", "toSorted", "with"];
  const arrays = Object.getPrototypeOf(global.Int8Array.prototype);
  for (const name of copies) {
    guardMethod(arrays, name, ownSize);
  }
  for (const name of CONSTRUCTORS) {
    const Class = global[name];
    if (!guardedBy.has(Class)) {
      const value = guarded(Class);
      Object.defineProperty(global, name, { value, writable: true, enumerable: false, configurable: true });
      Object.defineProperty(Class.prototype, "constructor", { value, writable: true, configurable: true });
    }
  }
}

/** Counts the bytes of Node's functions that return new buffers or strings outside the heap. */
function guardNode() {
  guardMethod(ArrayBuffer.prototype, "slice", ownSize);
  guardMethod(TextEncoder.prototype, "encode", (_, [text]) => text?.length);
  guardMethod(crypto, "randomBytes", (_, [size]) => size);
  guardMethod(Buffer.prototype, "toString", ({ length }, [encoding]) => {
    const factor = encoding === "hex" ? 2 : 1;
    return length * factor > LARGE_TEXT ? length * factor : 0;
  });
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
  guardNode();
  guardGlobal(globalThis);
}

/** Lets the guard count the buffers that the code of a context creates. */
function guardContext(global) {
  if (guard === undefined) {
    return;
  }
  guardGlobal(global);
}

/** Runs a call while the memory of this thread is measured, if it has a limit. */
async function measured(task) {
  if (guard === undefined) {
    return task();
  }
  guard.begin();
  try {
    return await task();
  } finally {
    guard.end();
  }
}

module.exports = { MEMORY_EXIT_CODE, guardContext, limitMemory, measured, withoutGuard };

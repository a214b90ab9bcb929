"use strict";

const vm = require("node:vm");
const { installGlobals } = require("./globals.js");
const { IntrinsicsCheck } = require("./intrinsics.js");
const { realmOf } = require("./realm.js");
const { interceptRejections } = require("./rejections.js");
const { restoreShared } = require("./shared-objects.js");

/** A global object for one outermost call at a time. */
class FunctionContext {
  /** The current call, or the last one. */
  call = null;
  /** The objects of the thread that the current call has used. */
  used = new Set();
  /** True if code of the call can run after its end, so that no other call may use the context. */
  isUsedUp = false;
  #context;
  #evaluators = new Map();
  #check;

  /** The names of the global object's properties. */
  #names;

  constructor() {
    this.#context = vm.createContext(vm.constants.DONT_CONTEXTIFY, { name: "functions" });
    this.realm = realmOf(this.#context);
    installGlobals(this);
    interceptRejections(this.realm.Promise, this);
    this.#names = new Set(Reflect.ownKeys(this.realm.global));
    // Changes of the main realm's objects concern all contexts, so they are not compared.
    this.#check = new IntrinsicsCheck(this.#context, [Object.prototype, Function.prototype]);
  }

  /** Returns a function that evaluates a source: `(exports, context, require) -> exports`. */
  evaluator(script) {
    let evaluate = this.#evaluators.get(script);
    if (evaluate === undefined) {
      evaluate = script.compiled().runInContext(this.#context);
      this.#evaluators.set(script, evaluate);
    }
    return evaluate;
  }

  /** Receives a rejection that the function has not handled. */
  rejected(promise, reason) {
    this.call?.rejected(promise, reason);
  }

  /** Receives a promise that was handled after its rejection was reported. */
  handled(promise) {
    this.call?.handled(promise);
  }

  /** Takes the changes of the thread's objects back. */
  restoreShared(isFull) {
    restoreShared(this.used, isFull);
    this.used.clear();
  }

  /** Removes new globals. Returns true if the next call cannot find anything of the last one. */
  isClean(needsFullCheck) {
    const { global } = this.realm;
    for (const name of Object.keys(global)) {
      if (!this.#names.has(name)) {
        Reflect.deleteProperty(global, name);
      }
    }
    this.realm.forgetMatch();
    return this.#check.passes(needsFullCheck);
  }
}

/** The contexts that no call uses. */
class ContextPool {
  #idle = [];
  #limit;

  constructor(limit) {
    this.#limit = limit;
  }

  take() {
    return this.#idle.pop() ?? new FunctionContext();
  }

  /** Takes a context back after a call, or discards it. */
  release(context, { needsFullCheck }) {
    context.timers.clear();
    context.restoreShared(needsFullCheck);
    if (!context.isUsedUp && this.#idle.length < this.#limit && context.isClean(needsFullCheck)) {
      this.#idle.push(context);
    } else {
      context.timers.close();
    }
  }

  /** Discards the context of a call that was cancelled. */
  discard(context) {
    context.timers.close();
    context.restoreShared(true);
  }
}

module.exports = { ContextPool };

// Compiles the examples in the declarations: `node scripts/doc-examples.mjs`.
//
// Each fenced block after `@example` in `index.d.ts` and `lib/database.d.ts` is compiled as a
// module with the settings of `__test__/types/tsconfig.json`, as if it were in that directory.
// Every public entry needs an example, and every option and property of a class needs a
// description. Deprecated entries need neither. The last line is `N passed, N failed`.
import path from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const DECLARATIONS = ["index.d.ts", "lib/database.d.ts"].map((file) => path.join(ROOT, file));
const TYPES = path.join(ROOT, "__test__/types");

/** The imports and declarations that every example may use. */
const PRELUDE = `import Realm, { App, BSON, Credentials, openBackend, serve, User, UserState } from "userkeep";
type Plant = { _id: Realm.BSON.ObjectId; name: string; type: string; height?: number };
declare const app: Realm.App;
declare const user: Realm.User;
declare const plants: Realm.MongoDB.MongoDBCollection<Plant>;
declare const backend: Realm.Backend;
declare const server: Realm.Server;
`;

/** The parts of Node.js that examples use. The settings include no types of Node.js. */
const NODE = `declare module "node:crypto" {
  function scryptSync(password: string, salt: string, length: number): Uint8Array;
}
declare const process: {
  env: Record<string, string | undefined>;
  once(event: string, listener: () => unknown): void;
};
`;

/** The names of the Realm database that are implemented, so that they need an example. */
const WORKING = new Set([
  "LogCategory",
  "LogEntry",
  "LoggerCallback",
  "LoggerCallback2",
  "NumericLogLevel",
  "kmToRadians",
  "miToRadians",
]);

/** The types whose properties need a description. */
const DESCRIBED = /(Configuration|Error|Options|Result|ApiKey)$/;

const counts = { passed: 0, failed: 0 };

function check(failure) {
  counts[failure === undefined ? "passed" : "failed"] += 1;
  if (failure !== undefined) {
    console.log(failure);
  }
}

/** Returns `FILE:LINE` of a position. */
function placeOf(source, position) {
  const { line } = source.getLineAndCharacterOfPosition(position);
  return `${path.relative(ROOT, source.fileName)}:${line + 1}`;
}

/** Extracts the examples of a file: their code, and the number of the line before it, from 1. */
function examplesOf(file) {
  const lines = ts.sys.readFile(file).split("\n");
  const examples = [];
  for (let index = 0; index < lines.length; index++) {
    if (!/^\s*\* @example\b/.test(lines[index])) {
      continue;
    }
    const start = index + 2;
    if (!/^\s*\* ```(ts|js)$/.test(lines[index + 1])) {
      check(`${path.relative(ROOT, file)}:${index + 1}: the example is not a block of \`\`\`ts or \`\`\`js`);
      continue;
    }
    const code = [];
    for (index = start; !/^\s*\* ```$/.test(lines[index]); index++) {
      code.push(lines[index].replace(/^\s*\* ?/, ""));
    }
    examples.push({ file, line: start, code });
  }
  return examples;
}

/** Returns the module of an example: the prelude, then the lines of the block. */
function moduleOf({ code }) {
  const isImport = (line) => /^import\b/.test(line);
  const imports = code.filter(isImport).join(" ");
  const body = code.map((line) => (isImport(line) ? "" : line)).join("\n");
  return `${PRELUDE}${imports}\nexport async function example() {\n${body}\n}\n`;
}

const FIRST_LINE = PRELUDE.split("\n").length + 1;

/** Creates the program of all declarations and examples, which exist in memory only. */
function createProgram(examples) {
  const config = ts.getParsedCommandLineOfConfigFile(path.join(TYPES, "tsconfig.json"), undefined, {
    ...ts.sys,
    onUnRecoverableConfigFileDiagnostic: ({ messageText }) => {
      throw new Error(ts.flattenDiagnosticMessageText(messageText, "\n"));
    },
  });
  const modules = new Map(examples.map((example, index) => [path.join(TYPES, `example-${index}.mts`), example]));
  const node = path.join(TYPES, "node.d.ts");
  const texts = new Map([...modules].map(([name, example]) => [name, moduleOf(example)])).set(node, NODE);
  const host = ts.createCompilerHost(config.options);
  const { readFile, fileExists, getSourceFile } = host;
  host.readFile = (name) => texts.get(name) ?? readFile(name);
  host.fileExists = (name) => texts.has(name) || fileExists(name);
  host.getSourceFile = (name, options, ...rest) =>
    texts.has(name) ? ts.createSourceFile(name, texts.get(name), options, true) : getSourceFile(name, options, ...rest);
  const program = ts.createProgram([...DECLARATIONS, ...texts.keys()], config.options, host);
  return { program, modules };
}

/** Checks that each example compiles. */
function checkExamples(program, modules) {
  for (const [name, { file, line }] of modules) {
    const source = program.getSourceFile(name);
    const diagnostics = ts.getPreEmitDiagnostics(program, source);
    const failures = diagnostics.map(({ start = 0, messageText }) => {
      const at = source.getLineAndCharacterOfPosition(start).line + 1 - FIRST_LINE;
      const message = ts.flattenDiagnosticMessageText(messageText, "\n");
      return `${path.relative(ROOT, file)}:${line + Math.max(at, 0)}: the example does not compile: ${message}`;
    });
    check(failures.length > 0 ? failures.join("\n") : undefined);
  }
}

/** Checks that every public entry has an example and a description. */
class EntryCheck {
  #checker;
  #seen = new Set();
  #main;

  /** `main` is the class `Realm`. Only its static members work; the others need an open Realm. */
  constructor(checker, main) {
    this.#checker = checker;
    this.#main = main;
  }

  /** Checks `Realm` and everything in it. */
  run() {
    const symbol = this.#checker.getSymbolAtLocation(this.#main.name);
    this.#seen.add(symbol);
    this.#entry(symbol, "Realm");
  }

  /** Checks the exports of a namespace, and of the namespaces in it. */
  #namespace(symbol, prefix) {
    for (const exported of this.#checker.getExportsOfModule(symbol)) {
      const isAlias = (exported.flags & ts.SymbolFlags.Alias) !== 0;
      const entry = isAlias ? this.#checker.getAliasedSymbol(exported) : exported;
      // The static properties of a class are among its exports, and are checked as members.
      const isProperty = (entry.flags & ts.SymbolFlags.Property) !== 0;
      if (!this.#seen.has(entry) && entry.declarations && !isProperty) {
        this.#seen.add(entry);
        this.#entry(entry, `${prefix}.${exported.name}`);
      }
    }
  }

  #entry(symbol, name) {
    const declarations = symbol.declarations.filter((declaration) => !isReference(declaration));
    const files = declarations.map((declaration) => declaration.getSourceFile().fileName);
    const isPublic = files.includes(DECLARATIONS[0]) || WORKING.has(symbol.name);
    if (!isPublic || this.#isDeprecated(symbol)) {
      return;
    }
    // A namespace with the same name as a value contains only types of that value.
    const isBsonOrValue = symbol.name === "BSON" || (symbol.flags & ts.SymbolFlags.Variable) !== 0;
    const isNamespaceAlone = declarations.every(ts.isModuleDeclaration) && !isBsonOrValue;
    if (!isNamespaceAlone) {
      this.#needsExample(symbol, name);
    }
    if ((symbol.flags & ts.SymbolFlags.Namespace) !== 0 && !isBsonOrValue) {
      this.#namespace(symbol, name);
    }
    for (const declaration of declarations) {
      this.#membersOf(declaration, name);
    }
  }

  #membersOf(declaration, name) {
    if (ts.isClassDeclaration(declaration) || ts.isInterfaceDeclaration(declaration)) {
      this.#members(declaration, name);
    } else if (ts.isTypeAliasDeclaration(declaration) && DESCRIBED.test(declaration.name.text)) {
      for (const literal of literalsIn(declaration.type)) {
        for (const member of literal.members.filter(ts.isPropertySignature)) {
          if (!this.#isDeprecated(member.symbol)) {
            this.#needsDescription(member.symbol, `${name}.${member.name.getText()}`);
          }
        }
      }
    }
  }

  /** Checks the members of a class or an interface. */
  #members(declaration, name) {
    const isError = declaration.heritageClauses?.some((clause) => clause.getText().endsWith("Error"));
    for (const member of declaration.members) {
      const flags = ts.getCombinedModifierFlags(member);
      const isHidden =
        flags & ts.ModifierFlags.Private || (declaration === this.#main && !(flags & ts.ModifierFlags.Static));
      const symbol = member.symbol;
      if (isHidden || isError || !symbol || this.#seen.has(symbol) || this.#isDeprecated(symbol)) {
        continue;
      }
      this.#seen.add(symbol);
      const memberName = `${name}.${member.name?.getText() ?? "constructor"}`;
      const isFunction = ts.isMethodDeclaration(member) || ts.isMethodSignature(member);
      if (isFunction || ts.isConstructorDeclaration(member)) {
        this.#needsExample(symbol, memberName);
      } else {
        this.#needsDescription(symbol, memberName);
      }
    }
  }

  #tags(symbol) {
    return symbol.declarations.flatMap((declaration) => ts.getJSDocTags(declaration));
  }

  #isDeprecated(symbol) {
    return symbol.declarations.every((declaration) =>
      ts.getJSDocTags(declaration).some(({ tagName }) => tagName.text === "deprecated"),
    );
  }

  #needsExample(symbol, name) {
    this.#needsDescription(symbol, name);
    const has = this.#tags(symbol).some(({ tagName }) => tagName.text === "example");
    check(has ? undefined : `${this.#placeOf(symbol)}: ${name} has no @example`);
  }

  #needsDescription(symbol, name) {
    const text = ts.displayPartsToString(symbol.getDocumentationComment(this.#checker)).trim();
    check(text ? undefined : `${this.#placeOf(symbol)}: ${name} has no description`);
  }

  #placeOf({ declarations: [declaration] }) {
    return placeOf(declaration.getSourceFile(), declaration.getStart());
  }
}

/** Returns true for another name of an entry, such as `type ApiKey = RealmItself.ApiKey`. */
function isReference(declaration) {
  return ts.isTypeAliasDeclaration(declaration) && declaration.type.getText().startsWith("RealmItself.");
}

/** Returns the object types in a type: the type itself, or the parts of an intersection. */
function literalsIn(type) {
  if (ts.isIntersectionTypeNode(type)) {
    return type.types.flatMap(literalsIn);
  }
  return ts.isTypeLiteralNode(type) ? [type] : [];
}

const examples = DECLARATIONS.flatMap(examplesOf);
const { program, modules } = createProgram(examples);
checkExamples(program, modules);
const { statements } = program.getSourceFile(DECLARATIONS[0]);
new EntryCheck(program.getTypeChecker(), statements.find(ts.isClassDeclaration)).run();
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed > 0 || examples.length === 0 ? 1 : 0;

// Runs around `npm pack` in a checkout: with `published`, adds the platform packages to
// package.json, else removes them again.
import fs from "node:fs";
import { publishedManifest } from "./pack.mjs";

const { optionalDependencies, ...manifest } = publishedManifest();
const packed = process.argv[2] === "published" ? { ...manifest, optionalDependencies } : manifest;
fs.writeFileSync("package.json", `${JSON.stringify(packed, null, 2)}\n`);

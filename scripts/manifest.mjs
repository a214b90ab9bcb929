// `npm pack` in a checkout: names the platforms' packages in package.json, and takes them out again afterwards.
import fs from "node:fs";
import { publishedManifest } from "./pack.mjs";

const { optionalDependencies, ...manifest } = publishedManifest();
const packed = process.argv[2] === "published" ? { ...manifest, optionalDependencies } : manifest;
fs.writeFileSync("package.json", `${JSON.stringify(packed, null, 2)}\n`);

// Rejects `npm publish` in a checkout. npm would publish the manifest as it is after packing, which names no addon.
console.error(
  "publish the tarballs: run `npm run package` on every platform, then `npm publish FILE` for those of the platforms, " +
    "and for the main package last",
);
process.exit(1);

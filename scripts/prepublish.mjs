// Rejects `npm publish` in a checkout: npm would publish the manifest after it has been restored,
// without the platform packages.
console.error(
  "publish the tarballs instead: run `npm run package` on every platform, then `npm publish FILE` for each platform " +
    "package, and for the main package last",
);
process.exit(1);

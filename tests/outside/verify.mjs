// Verifies bundles with sigstore's own implementation, and knows nothing of imgbuild.
//
// Usage: node verify.mjs KEY.pem BUNDLE...
// Prints one line of JSON for each bundle: {"bundle", "accepted", "reason", "predicateType"}. Exit code 0 when it could
// say something about every bundle, whatever that was.
import { createHash, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, toTrustMaterial, Verifier } from "@sigstore/verify";

const [keyFile, ...bundles] = process.argv.slice(2);
const der = createPublicKey(readFileSync(keyFile)).export({ format: "der", type: "spki" });
// What cosign writes into a bundle as the hint of a key.
const hint = createHash("sha256").update(der).digest("base64");
const trust = toTrustMaterial(
  { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] },
  { [hint]: { rawBytes: der } },
);
// As `cosign --insecure-ignore-tlog`: a key of one's own has no entry in a public log.
const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });

for (const file of bundles) {
  let line = { bundle: file, accepted: false, reason: "", predicateType: "" };
  try {
    const bundle = bundleFromJSON(JSON.parse(readFileSync(file, "utf-8")));
    verifier.verify(toSignedEntity(bundle));
    line.predicateType = JSON.parse(bundle.content.dsseEnvelope.payload.toString("utf-8")).predicateType;
    line.accepted = true;
  } catch (error) {
    line.reason = `${error.code ?? error.name}: ${error.message}`;
  }
  console.log(JSON.stringify(line));
}

"""What a build leaves: finished parts, the ledger, shards, the manifest, and exports of them."""

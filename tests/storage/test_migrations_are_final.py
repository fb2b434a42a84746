"""A migration that has landed never changes: databases in the field have applied it as it was."""

import hashlib
from pathlib import Path

import forestay.storage

FOLDER = Path(forestay.storage.__file__).parent
# The SHA-256 of every migration. A new file adds its line (the failing test prints it); a line never changes.
DIGESTS = {
    "migrations/0001_spine.pre.sql": "02e7dbfc6404a73a329931919cce5e79cd8542fad50f4e865080778805f6875c",
    "migrations/0002_identity.pre.sql": "8407946ca24283121b0b4cb0c46aee1391984d4476b6b274bcabac5428a1c931",
    "migrations/0003_limits.pre.sql": "b46195e97cc489d75b387d9d1a09815a503e97ee77be93e284a88802d44d6ed8",
    "migrations/0004_prediction.pre.sql": "849926474433d456dbdf4b5f0874eaa26ea929212de1958ba662a1b38d0237d9",
    "migrations/0005_turns.pre.sql": "dbdad878851b07594bff2e7903c7a45f9cc024fd28616a47f7ba444954e7eb5e",
    "migrations/0006_artefacts.pre.sql": "1ea6fd4e4ff4e9162186937cb8d7668ea73c5fd485fe453ebd8e67d66b5c9362",
    "migrations/0007_standings.pre.sql": "d1ffb373dfa2d8e6e14106a38c650e8baf0b413aed9475e8788fd0c907fff00f",
    "migrations/0008_spine.pre.sql": "45389f832ba78e3af3dd3d51838878f5ca90648b857b2e12e6f29a841fb1553a",
    "migrations/0009_abuse_state.pre.sql": "74efc6b01bb17e12e9982eb05d37f4bbb16660f64d114a9b8fb16d49d23abfec",
    "migrations/0010_safety.pre.sql": "597fc2577ca4ff1515cf1c756f4cc04e9f7464d7d525c14c5aaf7ae2be8b5f73",
    "migrations/0011_hash_banks.pre.sql": "c4a473ef787bfadec1f0073739e180720cf6d8bcd01f95c149acc3e9b9a0e662",
    "migrations/0012_alerts.pre.sql": "1d5e3879d20d065db4c8782fcab6ca83514a887b244cc6e81004a941b776e8c4",
    "migrations/0013_review.pre.sql": "d355cf95f0e9bc1e146c94fddcf90daccc6d65fb552d40eed42cc633d6074cb2",
    "migrations/0014_tenant_policies.pre.sql": "ad74d30c3228cc74bf82509f7e5d40e86a8f2afd0978011c9741b9d5a65a6b2a",
    "migrations/0015_rollouts.pre.sql": "ecac54776c82f63e0ba397dce390d60ef177414e54122de9224d5df1bf1f7c65",
    "migrations/0016_slo_standings.pre.sql": "32ffa92fc76ff3d630318d7d1b200b5c82119d02e7560665cc389d86b4f85348",
    "migrations/0017_quality_findings.pre.sql": "6bc057d858fc6bcc1a08ffc44f86a49ab7d817c00337b0110e341bfc9efa8068",
    "migrations/0018_slo_files.pre.sql": "aba95905652caaa8b85dbee348c2797a0ef27d56b2c11c2dec30cc1676a3e867",
    "migrations/0019_shadow.pre.sql": "258d37efc0fd7fe9a962707aa155c5884102af395df2d761fd5dda4a03a49bed",
    "migrations/0020_quality_watch.pre.sql": "92520a8b7fbeb710e4851ddd49581126b43fddf7c2c2316ab29e149f422090d6",
    "migrations/0021_slo_policy.pre.sql": "a8d418e2f23e799e134a8f6215788b50682f424ff9f6622a50f1ca08d6c90323",
    "migrations/0022_readiness.pre.sql": "25260e8406d4ae7b6df49f428557f993f59d7b639c4033ed5f52c7e9bc3a11b3",
    "migrations/0023_drills.pre.sql": "66525c79805c44c8d9d721508d0a03dfddcd026f0770b199da6435deb2f49e6c",
    "migrations/0024_canaries.pre.sql": "9a5c9c21fc0d24d0bdd0626262541a71f6abcf6fb8315543331ad8247fe34b16",
    "migrations/0025_review.pre.sql": "32710e9e8447bfad7d61ae69762b1661341b45040f99be931481174f5ee09646",
    "migrations/0026_devices.pre.sql": "05efa110847f30b31b6338ff678227b87f1d613c4a595fa53078189e67f85c7f",
    "migrations/0027_safety_audits.pre.sql": "1e04c8de7d9407aeb9d7a506fc35e1ec43ac9e333ff2d554b5e49cc8c7c9d151",
    "migrations/0028_slo_forgiven.pre.sql": "b3f9cd9b6c403181c744eda7b9b3dfe7718258517c1ffb223ab87303844b6f5e",
    "migrations/0029_drained_replicas.pre.sql": "80a65b986cc808c387b25f1193226762c76539a065ef720d0abc08adc0d12952",
    "migrations/0030_quality_evidence.pre.sql": "3e963b02c2a6ca1fa1604fed72000500c169fec31310c36800b72b812f61cb4d",
    "facts_migrations/0001_facts.pre.sql": "3fea2c3960f7e1e59d62cf6b29a94f9c6accb50005cebe111f4236435dc33d6f",
    "facts_migrations/0002_tags.pre.sql": "ee66efa6d0b6dccc6448788b208882dd33523503ff7cbdad35b54a8920d84dbb",
    "facts_migrations/0003_calls.pre.sql": "25c6143d2935694f532fc1c3bb0a60b030dbee4c12d1922918feae9847935806",
    "facts_migrations/0004_call_ids.pre.sql": "fe678d8bbc79f35fe1f1f60d586da5c24751c69c736b340ffc0640499508c1f4",
    "facts_migrations/0005_verdicts.pre.sql": "521486707ed313774d9132a0f33d0d7b61c85e2d1228fb02f2f583acee1f38be",
    "facts_migrations/0006_stages.pre.sql": "5ff6946031c037ed807ad8982deaab0771dbba1c2ff826f7154c683df2b5b56a",
    "facts_migrations/0007_rollups.pre.sql": "d16a09270148396d4d6a91d2124e1d174141789f4b0ea5383d61241a1cc0b7c9",
    "facts_migrations/0008_verdicts_beside.pre.sql": (
        "1a68ebf2ebf529f26bf3517cb807c97b91d86530c2f63c8ade2d13fe5f5033af"
    ),
    "facts_migrations/0009_outputs.pre.sql": "859815153f2b9e07c6088db39c8a85bc0f0e17c741d5888cba898673ef07134a",
    "facts_migrations/0010_polls.pre.sql": "840afa1f23f3dd312d15367d79b4a5be0ebb8864b3ccfae665d6babd7dc3a291",
    "facts_migrations/0011_fingerprints.pre.sql": "4c1cf4b4c2d89c46dedb1a927247975f59e586eb29d9726a0f364d6ca0a176b7",
    "facts_migrations/0012_cancelled.pre.sql": "f3dd41cfbf85dd6e1e5285e6a6efd4aeb679494fe27d67576eeae32c17ce52c9",
    "facts_migrations/0013_provenance.pre.sql": "ff97c32a2f10513c9d4cf9b806e07fb3b2475ba426ed46adaac0598148ce85b7",
    "facts_migrations/0014_asked.pre.sql": "85f05fb89ea3df23acbdb31b824e7461fc589158f2290c8b674a99a862c6eaff",
}


def test_every_migration_is_as_it_landed() -> None:
    """Mend a mistake by a further migration, never in place."""
    found = {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("migrations", "facts_migrations")
        for path in sorted((FOLDER / kind).glob("*.sql"))
    }
    assert found == DIGESTS

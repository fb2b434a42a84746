"""The admin API: what the CLI (and later the console) asks of a running platform.

It decides what a person may ask and how it is answered: 401 for who is not proven, 403 without the scope or the
permission that the route names, 404 for what is not there, 409 for what stands against it, 413 for what is too large,
422 with the field for what is wrong. Whatever a person changes leaves an audit row that names the person or key. The
rules of the fleet are `fleet/apply`'s. Mounted at `/admin`.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import UsageError
from forestay.fleet.roles import Permission, allows
from forestay.gateway import (
    admin_abuse,
    admin_alerts,
    admin_artefacts,
    admin_audit,
    admin_canaries,
    admin_capacity,
    admin_customer_report,
    admin_drills,
    admin_evidence,
    admin_fingerprints,
    admin_fleet,
    admin_judging,
    admin_keys,
    admin_limits,
    admin_observe,
    admin_oidc,
    admin_people,
    admin_policies,
    admin_provenance,
    admin_quality,
    admin_readiness,
    admin_requests,
    admin_revisions,
    admin_rollout_reports,
    admin_rollouts,
    admin_safety,
    admin_safety_audit,
    admin_safety_hashes,
    admin_safety_media,
    admin_safety_reports,
    admin_safety_review,
    admin_sign_in,
    admin_slo,
    admin_turns,
)
from forestay.gateway.admin_reading import Act, NotThere, Problem
from forestay.gateway.admin_who import identify
from forestay.gateway.incoming import SenderGone, SenderSlow
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors, forbidden, plain_error
from forestay.telemetry.metrics import REFUSED

Handler = Callable[[Act], Awaitable[Reply]]
_TABLE: tuple[tuple[str, str, Permission, Handler], ...] = (
    ("PUT", "/bundles/{digest}", Permission.OPERATE, admin_fleet.put_bundle),
    ("GET", "/bundles/{digest}", Permission.READ, admin_fleet.get_bundle),
    ("GET", "/trust", Permission.READ, admin_artefacts.get_trust),
    ("POST", "/trust", Permission.ADMINISTER, admin_artefacts.post_trust),
    ("DELETE", "/trust/{name}", Permission.ADMINISTER, admin_artefacts.delete_trust),
    ("POST", "/models", Permission.OPERATE, admin_fleet.post_model),
    ("GET", "/models", Permission.READ, admin_fleet.get_models),
    ("GET", "/models/{owner}/{alias}", Permission.READ, admin_fleet.get_model),
    ("GET", "/models/{owner}/{alias}/readiness", Permission.READ, admin_readiness.get_readiness),
    ("POST", "/models/{owner}/{alias}/admit", Permission.OPERATE, admin_readiness.post_admit),
    ("POST", "/models/{owner}/{alias}/waivers", Permission.OPERATE, admin_readiness.post_waiver),
    ("GET", "/models/{owner}/{alias}/revisions", Permission.READ, admin_revisions.get_revisions),
    ("POST", "/models/{owner}/{alias}/set-back", Permission.OPERATE, admin_revisions.post_set_back),
    ("GET", "/rollouts", Permission.READ, admin_rollouts.get_rollouts),
    ("GET", "/rollouts/{rollout_id}", Permission.READ, admin_rollouts.get_rollout),
    ("GET", "/rollouts/{rollout_id}/report", Permission.READ, admin_rollout_reports.get_report),
    (
        "GET",
        "/rollouts/{rollout_id}/sheets/{request_id}",
        Permission.READ_CONTENT,
        admin_rollout_reports.get_sheet,
    ),
    ("POST", "/rollouts/{rollout_id}/replay", Permission.READ, admin_rollout_reports.post_replay),
    ("POST", "/rollouts/{rollout_id}/promote", Permission.OPERATE, admin_rollouts.post_promote),
    ("POST", "/rollouts/{rollout_id}/abort", Permission.OPERATE, admin_rollouts.post_abort),
    ("POST", "/rollouts/{rollout_id}/override", Permission.OPERATE, admin_rollouts.post_override),
    ("POST", "/rollouts/{rollout_id}/safety", Permission.SAFETY, admin_rollouts.post_safety),
    ("POST", "/rollouts/{rollout_id}/pause", Permission.OPERATE, admin_rollouts.post_pause),
    ("POST", "/rollouts/{rollout_id}/resume", Permission.OPERATE, admin_rollouts.post_resume),
    ("GET", "/fleet", Permission.READ, admin_fleet.get_fleet),
    ("GET", "/fleet/devices", Permission.READ, admin_fleet.get_devices),
    ("POST", "/freeze", Permission.OPERATE, admin_fleet.post_freeze),
    ("POST", "/modes", Permission.OPERATE, admin_fleet.post_mode),
    ("GET", "/audit", Permission.READ, admin_audit.get_audit),
    ("GET", "/audit/verify", Permission.READ, admin_audit.get_audit_faults),
    ("POST", "/audit/verify", Permission.READ, admin_audit.post_audit_verify),
    ("POST", "/audit/anchor", Permission.ADMINISTER, admin_audit.post_audit_anchor),
    ("POST", "/keys", Permission.ADMINISTER, admin_keys.post_key),
    ("GET", "/keys", Permission.READ, admin_keys.get_keys),
    ("GET", "/keys/{key_id}", Permission.READ, admin_keys.get_key),
    ("DELETE", "/keys/{key_id}", Permission.ADMINISTER, admin_keys.delete_key),
    ("POST", "/keys/{key_id}/rotate", Permission.ADMINISTER, admin_keys.post_rotation),
    ("POST", "/sign-out", Permission.OWN, admin_sign_in.post_sign_out),
    ("GET", "/whoami", Permission.OWN, admin_sign_in.get_whoami),
    ("POST", "/password", Permission.OWN, admin_sign_in.post_password),
    ("POST", "/people", Permission.ADMINISTER, admin_people.post_person),
    ("GET", "/people", Permission.ADMINISTER, admin_people.get_people),
    ("POST", "/people/{person_id}/role", Permission.ADMINISTER, admin_people.post_role),
    ("POST", "/people/{person_id}/disable", Permission.ADMINISTER, admin_people.post_disable),
    ("POST", "/people/{person_id}/enable", Permission.ADMINISTER, admin_people.post_enable),
    ("POST", "/people/{person_id}/reset", Permission.ADMINISTER, admin_people.post_reset),
    ("POST", "/tenants", Permission.ADMINISTER, admin_keys.post_tenant),
    ("GET", "/tenants", Permission.READ, admin_keys.get_tenants),
    ("GET", "/tenants/{tenant_id}", Permission.READ, admin_keys.get_tenant),
    ("GET", "/tenants/{tenant_id}/slo-report", Permission.READ, admin_customer_report.get_report),
    ("PUT", "/tenants/{tenant_id}/weight", Permission.ADMINISTER, admin_turns.put_weight),
    ("GET", "/turns", Permission.READ, admin_turns.get_turns),
    ("POST", "/capacity/predict", Permission.READ, admin_capacity.post_prediction),
    ("GET", "/capacity/models", Permission.READ, admin_capacity.get_cost_models),
    ("GET", "/limits", Permission.READ, admin_limits.get_limits),
    ("PUT", "/limits", Permission.ADMINISTER, admin_limits.put_limits),
    ("DELETE", "/limits", Permission.ADMINISTER, admin_limits.delete_limits),
    ("GET", "/limits/usage", Permission.READ, admin_limits.get_usage),
    ("GET", "/quality/findings", Permission.READ, admin_quality.get_findings),
    ("POST", "/quality/findings/{finding_id}/close", Permission.OPERATE, admin_quality.post_close),
    ("GET", "/quality/findings/{finding_id}/evidence", Permission.READ, admin_evidence.get_evidence),
    ("GET", "/quality/findings/{finding_id}/evidence/{number}", Permission.SAFETY, admin_evidence.get_copy),
    ("GET", "/quality/holds", Permission.READ, admin_quality.get_holds),
    ("POST", "/quality/holds/{worker_id}/{revision_id}/release", Permission.OPERATE, admin_quality.post_release),
    ("POST", "/quality/replicas/{replica_id}/drain", Permission.OPERATE, admin_quality.post_drain),
    ("GET", "/drills/faults", Permission.READ, admin_drills.get_faults),
    ("GET", "/drills", Permission.READ, admin_drills.get_drills),
    ("POST", "/drills", Permission.OPERATE, admin_drills.post_drill),
    ("POST", "/drills/{drill_id}/stop", Permission.OPERATE, admin_drills.post_stop),
    ("GET", "/quality/fingerprints", Permission.READ, admin_fingerprints.get_fingerprints),
    ("GET", "/quality/canaries", Permission.READ, admin_canaries.get_canaries),
    ("GET", "/quality/canaries/sheet", Permission.READ, admin_canaries.get_sheet),
    ("POST", "/quality/canaries/run", Permission.OPERATE, admin_canaries.post_run),
    ("POST", "/quality/canaries/approve", Permission.OPERATE, admin_canaries.post_approve),
    ("GET", "/slos", Permission.READ, admin_slo.get_slos),
    ("GET", "/slos/{slo_id}", Permission.READ, admin_slo.get_slo),
    ("POST", "/slos/{slo_id}/adjustments", Permission.OPERATE, admin_slo.post_adjustment),
    ("POST", "/slos/{slo_id}/give-backs", Permission.OPERATE, admin_slo.post_give_back),
    ("GET", "/slo-adjustments", Permission.READ, admin_slo.get_adjustments),
    ("POST", "/slo-adjustments/{number}/withdraw", Permission.OPERATE, admin_slo.post_withdraw),
    ("GET", "/slo-decisions", Permission.READ, admin_slo.get_decisions),
    ("GET", "/requests", Permission.READ, admin_requests.get_requests),
    ("GET", "/requests/{request_id}", Permission.READ, admin_requests.get_request),
    ("GET", "/requests/{request_id}/result", Permission.READ_CONTENT, admin_requests.get_result),
    ("GET", "/requests/{request_id}/trace", Permission.READ, admin_requests.get_trace),
    ("POST", "/requests/{request_id}/cancel", Permission.OPERATE, admin_requests.post_cancel),
    ("POST", "/observe/v1/facts", Permission.OPERATE, admin_observe.post_facts),
    ("GET", "/observe/v1/summary", Permission.READ, admin_observe.get_summary),
    ("GET", "/webhooks", Permission.READ, admin_requests.get_webhooks),
    ("POST", "/webhooks/{request_id}/retry", Permission.OPERATE, admin_requests.post_webhook_retry),
    ("GET", "/alerts", Permission.READ, admin_alerts.get_alerts),
    ("GET", "/alerts/silences", Permission.READ, admin_alerts.get_silences),
    ("POST", "/alerts/silences", Permission.OPERATE, admin_alerts.post_silence),
    ("POST", "/alerts/silences/{silence_id}/end", Permission.OPERATE, admin_alerts.post_silence_end),
    ("GET", "/alerts/routes", Permission.READ, admin_alerts.get_routes),
    ("POST", "/alerts/test", Permission.OPERATE, admin_alerts.post_test),
    ("GET", "/alerts/notifications", Permission.READ, admin_alerts.get_notifications),
    ("POST", "/alerts/notifications/{notification_id}/resend", Permission.OPERATE, admin_alerts.post_resend),
    ("GET", "/alerts/{alert_id}", Permission.READ, admin_alerts.get_alert),
    ("POST", "/alerts/{alert_id}/ack", Permission.OPERATE, admin_alerts.post_ack),
    ("GET", "/abuse/standings", Permission.READ, admin_abuse.get_standings),
    ("POST", "/abuse/standings", Permission.SAFETY, admin_abuse.post_standing),
    ("GET", "/abuse/standings/{standing_id}", Permission.READ, admin_abuse.get_standing),
    ("GET", "/abuse/advised", Permission.READ, admin_abuse.get_advised),
    ("POST", "/abuse/lift", Permission.SAFETY, admin_abuse.post_lift),
    ("GET", "/abuse/appeals", Permission.READ, admin_abuse.get_appeals),
    ("POST", "/abuse/appeals", Permission.SAFETY, admin_abuse.post_appeal),
    ("POST", "/abuse/appeals/{appeal_id}/deny", Permission.SAFETY, admin_abuse.post_denial),
    ("GET", "/abuse/rules", Permission.READ, admin_judging.get_rules),
    ("PUT", "/abuse/rules", Permission.SAFETY, admin_judging.put_rules),
    ("GET", "/abuse/explain", Permission.READ, admin_judging.get_explanation),
    ("GET", "/abuse/calls", Permission.SAFETY, admin_judging.get_calls),
    ("GET", "/safety/policies", Permission.READ, admin_safety.get_policies),
    ("GET", "/safety/policies/{policy_id}", Permission.READ, admin_safety.get_policy),
    ("POST", "/safety/policies/{policy_id}", Permission.SAFETY, admin_safety.post_policy),
    ("POST", "/safety/policies/{policy_id}/stage", Permission.SAFETY, admin_safety.post_stage),
    ("POST", "/safety/policies/{policy_id}/rollback", Permission.SAFETY, admin_safety.post_rollback),
    ("GET", "/safety/tenants", Permission.READ, admin_policies.get_tenant_policies),
    ("PUT", "/safety/tenants/{tenant_id}", Permission.SAFETY, admin_policies.put_tenant_policy),
    ("GET", "/safety/coverage", Permission.READ, admin_safety.get_coverage),
    ("GET", "/safety/verdicts", Permission.SAFETY, admin_safety.get_verdicts),
    ("GET", "/safety/verify", Permission.READ, admin_safety.get_verification),
    ("POST", "/safety/withheld/{request_id}", Permission.SAFETY, admin_safety.post_ruling),
    ("GET", "/safety/audits", Permission.SAFETY, admin_safety_audit.get_due),
    ("GET", "/safety/audits/estimate", Permission.READ, admin_safety_audit.get_estimate),
    ("POST", "/safety/audits/{request_id}", Permission.SAFETY, admin_safety_audit.post_label),
    ("GET", "/safety/review", Permission.SAFETY, admin_safety_review.get_items),
    ("GET", "/safety/review/access", Permission.SAFETY, admin_safety_review.get_readings),
    ("GET", "/safety/review/stats", Permission.READ, admin_safety_review.get_stats),
    ("GET", "/safety/review/labels", Permission.SAFETY, admin_safety_review.get_labels),
    ("GET", "/safety/review/events", Permission.SAFETY, admin_safety_review.get_events),
    ("POST", "/safety/review/events/{event_id}/retry", Permission.SAFETY, admin_safety_review.post_event_retry),
    ("GET", "/safety/review/{item_id}", Permission.SAFETY, admin_safety_review.get_item),
    ("POST", "/safety/review/{item_id}/claim", Permission.SAFETY, admin_safety_review.post_claim),
    ("POST", "/safety/review/{item_id}/vote", Permission.SAFETY, admin_safety_review.post_vote),
    ("GET", "/safety/review/{item_id}/content", Permission.SAFETY, admin_safety_review.get_content),
    ("GET", "/safety/review/{item_id}/media/{number}", Permission.SAFETY, admin_safety_media.get_media),
    ("GET", "/safety/glass", Permission.READ, admin_safety.get_glass),
    ("POST", "/safety/glass", Permission.SAFETY, admin_safety.post_glass),
    ("POST", "/safety/glass/{waiver_id}/end", Permission.SAFETY, admin_safety.post_glass_end),
    ("POST", "/safety/banks", Permission.SAFETY, admin_safety_hashes.post_bank),
    ("GET", "/safety/banks", Permission.READ, admin_safety_hashes.get_banks),
    ("GET", "/safety/banks/{bank_id}", Permission.READ, admin_safety_hashes.get_bank),
    ("PUT", "/safety/banks/{bank_id}/ratio", Permission.SAFETY, admin_safety_hashes.put_ratio),
    ("POST", "/safety/banks/{bank_id}/add", Permission.SAFETY, admin_safety_hashes.post_add),
    ("POST", "/safety/banks/{bank_id}/remove", Permission.SAFETY, admin_safety_hashes.post_remove),
    ("GET", "/safety/banks/{bank_id}/entries", Permission.SAFETY, admin_safety_hashes.get_entries),
    ("POST", "/safety/entries/{entry_id}/restore", Permission.SAFETY, admin_safety_hashes.post_restore),
    ("POST", "/safety/match", Permission.SAFETY, admin_safety_hashes.post_match),
    ("GET", "/safety/reports", Permission.SAFETY, admin_safety_reports.get_cases),
    ("POST", "/safety/reports/{case_id}/retry", Permission.SAFETY, admin_safety_reports.post_retry),
    ("POST", "/safety/made-by-us", Permission.READ, admin_provenance.post_file),
)


OpenHandler = Callable[[Request, GatewayPorts], Awaitable[Reply]]
_OPEN: tuple[tuple[str, str, OpenHandler], ...] = (  # who signs in is not proven yet
    ("POST", "/sign-in", admin_sign_in.post_sign_in),
    ("GET", "/oidc/start", admin_oidc.get_start),
    ("GET", "/oidc/callback", admin_oidc.get_callback),
    ("POST", "/oidc/device", admin_oidc.post_device),
    ("POST", "/oidc/device/token", admin_oidc.post_device_token),
    ("POST", "/oidc/exchange", admin_oidc.post_exchange),
)


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the admin routes; one route a path, so that a wrong method is answered 405 with those allowed."""
    by_path: dict[str, dict[str, tuple[Permission, Handler]]] = {}
    for method, path, permission, handler in _TABLE:
        by_path.setdefault(path, {})[method] = (permission, handler)
    return [
        *(Route(f"/admin{path}", _open(ports, handler), methods=[method]) for method, path, handler in _OPEN),
        *(Route(f"/admin{path}", _endpoint(ports, found), methods=list(found)) for path, found in by_path.items()),
    ]


def table() -> tuple[tuple[str, str, Permission], ...]:
    """Return the method, path and permission of every route that asks for one: for the test that all roles are held."""
    return tuple((method, path, permission) for method, path, permission, _ in _TABLE)


def routes_of_the_reference() -> tuple[tuple[str, str, Permission | None, Callable[..., Awaitable[Reply]]], ...]:
    """Return every route with its handler, those without a permission (None: they sign in) last: for the reference."""
    opened = tuple((method, path, None, handler) for method, path, handler in _OPEN)
    return (*_TABLE, *opened)


def _endpoint(
    ports: GatewayPorts, handlers: dict[str, tuple[Permission, Handler]]
) -> Callable[[Request], Awaitable[Reply]]:
    async def endpoint(request: Request) -> Reply:
        permission, handler = handlers["GET" if request.method == "HEAD" else request.method]
        who = await identify(request.scope, ports)
        if isinstance(who, Reply):
            return who
        if who.one_time and permission is not Permission.OWN:
            return forbidden("Choose a password of your own first: `forestay login` asks for it")
        if not allows(who.role, permission):
            ports.metrics.add(REFUSED, "role")
            return forbidden(f"The role {who.role} lacks the permission {permission}")
        return await _answer(handler(Act(request, ports, who)))

    return endpoint


def _open(ports: GatewayPorts, handler: OpenHandler) -> Callable[[Request], Awaitable[Reply]]:
    async def endpoint(request: Request) -> Reply:
        return await _answer(handler(request, ports))

    return endpoint


async def _answer(work: Awaitable[Reply]) -> Reply:
    try:
        return await work
    except Problem as problem:
        return plain_error(problem.status_code, str(problem), problem.cause)
    except NotThere as error:
        return plain_error(404, str(error), "not_there")
    except UsageError as error:
        faults = cast("tuple[str, ...]", getattr(error, "faults", ()) or (error.message,))
        location: list[str | int] = ["body", error.field] if error.field != "body" else ["body"]
        return field_errors([FieldError(loc=location, msg=fault, type="value_error") for fault in faults])
    except (SenderSlow, SenderGone) as error:
        return plain_error(408, str(error), "slow_body", (b"connection", b"close"))

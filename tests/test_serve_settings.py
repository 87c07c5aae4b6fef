from __future__ import annotations

from typed_amp.serve_settings import Assignment, ServeSettings


def test_an_assignment_travels_as_json() -> None:
    settings = ServeSettings(
        "shop:router",
        drain_timeout=0.5,
        max_connections=7,
        start_timeout=1.5,
        log_level="DEBUG",
        tls_certificate="/größe.pem",
        tls_key=None,
        tls_authority="/a.pem",
    )
    for place in (3, None):
        assignment = Assignment(settings, 2, 9, [4, 5], 6, place)
        assert Assignment.from_json(assignment.as_json()) == assignment


def test_a_worker_has_time_to_drain_and_to_notice() -> None:
    settings = ServeSettings("shop:router", drain_timeout=30, max_connections=1, start_timeout=1)
    assert settings.patience > 30

"""What matters most, once more on uvloop: its transports are not asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests import test_bad_input, test_cancellation, test_client, test_connection, test_server
from tests import test_resending as resending
from tests import test_responses as responses
from tests import test_upkeep as upkeep
from tests import test_writer as writer
from tests.conftest import Certificates
from tests.peers import captured_log

uvloop = pytest.importorskip("uvloop")

Test = Callable[..., Coroutine[Any, Any, None]]

SCENARIOS: list[Test] = [
    responses.test_fatal_error_with_fields,
    responses.test_answers_go_out_as_they_are_ready,
    responses.test_same_tag_twice_is_answered_twice,
    responses.test_strays_are_counted_and_ignored,
    responses.test_cancelled_from_outside_while_it_runs_it_is_answered,
    test_client.test_entered,
    test_client.test_remote_address,
    test_client.test_nobody_listens,
    test_client.test_connect_waits_for_the_hooks,
    test_client.test_server_that_goes_during_the_hooks_fails_connect,
    test_client.test_the_server_may_call_its_client,
    test_client.test_no_certificates_without_tls,
    test_connection.test_a_thousand_calls_in_flight_answered_backwards,
    test_connection.test_both_sides_call_at_once,
    test_connection.test_recursion_back_and_forth,
    test_connection.test_timeout,
    test_connection.test_call_after_close,
    test_connection.test_calls_that_wait_when_this_side_closes,
    test_connection.test_calls_that_wait_when_the_peer_closes,
    test_connection.test_peer_that_ends_within_a_box,
    test_connection.test_peer_that_resets,
    test_connection.test_closing_twice_and_again_afterwards,
    test_connection.test_running_responders_finish,
    test_connection.test_responders_that_take_too_long_are_cancelled_and_answered,
    test_connection.test_responders_are_cancelled_when_the_connection_is_lost,
    test_connection.test_commands_wait_for_the_hooks,
    test_connection.test_hooks_run_in_order,
    writer.test_calls_that_waited_go_on_in_their_order,
    writer.test_no_answer_commands_in_a_tight_loop_wait,
    writer.test_held_back_calls_fail_when_the_connection_goes,
    writer.test_peer_that_does_not_read_its_answers_is_not_read_from,
    writer.test_answers_to_a_burst_of_asks_are_all_taken,
    test_cancellation.test_call_that_waits_for_its_answer,
    test_cancellation.test_connect_before_the_connection_is_there,
    test_server.test_connections,
    test_server.test_closing_lets_responders_finish,
    test_server.test_serve_forever_cancelled_closes,
    upkeep.test_it_comes_back_when_the_server_does,
    upkeep.test_addresses_in_their_turn,
    upkeep.test_attempt_that_takes_too_long,
    upkeep.test_a_connection_whose_peer_closes_is_left_and_finished,
    upkeep.test_closing_within_on_connect,
    resending.test_calls_in_flight_when_the_connection_is_lost,
    resending.test_what_a_closing_peer_refuses_goes_elsewhere,
    resending.test_waiting_for_a_connection_within_the_time,
    test_bad_input.test_half_boxes_on_many_connections,
]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def watched() -> None:
        await scenario
        left_over = asyncio.all_tasks() - {asyncio.current_task()}
        if left_over:
            _, left_over = await asyncio.wait(left_over, timeout=5)
        assert not left_over

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert type(runner.get_loop()).__module__.startswith("uvloop")
        runner.run(watched())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda test: test.__name__)
def test_on_uvloop(scenario: Test) -> None:
    run(scenario())


@pytest.mark.parametrize(
    "scenario",
    [
        test_server.test_unix_socket_is_removed,
        test_server.test_unix_socket_that_an_earlier_server_left_is_replaced,
        test_server.test_unix_socket_that_another_server_has_taken_over_stays,
        test_server.test_unix_socket_that_is_gone_already,
        test_server.test_file_in_the_way_is_left_alone,
        test_server.test_unix_path_in_messages_is_escaped,
    ],
    ids=lambda test: test.__name__,
)
def test_unix_on_uvloop(scenario: Test, tmp_path: Path) -> None:
    run(scenario(tmp_path))


@pytest.mark.parametrize("as_text", [True, False])
def test_unix_client_on_uvloop(tmp_path: Path, as_text: bool) -> None:
    run(test_client.test_unix(tmp_path, as_text))


@pytest.mark.parametrize(
    "scenario",
    [
        test_client.test_tls_shows_the_server,
        test_client.test_mutual_tls_shows_both,
        test_client.test_certificate_that_nobody_verified,
        test_client.test_large_values_over_tls,
        test_client.test_client_that_speaks_no_tls,
    ],
    ids=lambda test: test.__name__,
)
def test_tls_on_uvloop(scenario: Test, certificates: Certificates) -> None:
    run(scenario(certificates))


def test_tls_over_unix_on_uvloop(certificates: Certificates, tmp_path: Path) -> None:
    run(test_client.test_tls_over_unix(certificates, tmp_path))


@pytest.mark.parametrize(
    ("data", "reason"), test_bad_input.VIOLATIONS.values(), ids=test_bad_input.VIOLATIONS
)
def test_violation_on_uvloop(data: bytes, reason: str) -> None:
    with captured_log() as log:
        run(test_bad_input.test_violation_closes_with_a_reason(data, reason, log))


def test_flood_on_uvloop() -> None:
    run(
        test_bad_input.test_flood_leaves_memory_and_others_alone(
            test_bad_input.unknown_commands, 100_000, True
        )
    )


@pytest.mark.parametrize("size", [1, 60_000])
def test_two_that_call_each_other_on_uvloop(size: int) -> None:
    run(writer.test_two_that_call_each_other_do_not_deadlock(size))


@pytest.mark.parametrize("times", [(60, 0), (60, 0.01), (0.0001, 60)])
def test_shortest_drain_timeout_on_uvloop(times: tuple[float, ...]) -> None:
    run(test_connection.test_the_shortest_time_holds(times))


@pytest.mark.parametrize("with_tls", [False, True], ids=["tcp", "tls"])
def test_draining_on_uvloop(with_tls: bool, certificates: Certificates) -> None:
    run(
        test_server.test_what_was_answered_arrives_though_the_peer_goes_on_sending(
            with_tls, certificates
        )
    )

"""What matters most, once more on uvloop: its transports are not asyncio's."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests import (
    test_admission,
    test_bad_input,
    test_cancellation,
    test_client,
    test_connection,
    test_connection_pool,
    test_handover,
    test_peer_credentials,
    test_server,
    test_transitions,
)
from tests import test_pipe_transport as pipes
from tests import test_processes as processes
from tests import test_resending as resending
from tests import test_responses as responses
from tests import test_stdio as stdio
from tests import test_upkeep as upkeep
from tests import test_worker_pool as worker_pools
from tests import test_writer as writer
from tests.conftest import Certificates
from tests.leftovers import Leftovers
from tests.peers import captured_log

uvloop = pytest.importorskip("uvloop")

Test = Callable[..., Coroutine[Any, Any, None]]

SCENARIOS: list[Test] = [
    test_connection_pool.test_a_server_that_is_gone_is_put_aside_and_comes_back,
    test_connection_pool.test_all_down_then_up,
    test_connection_pool.test_calls_in_flight_when_a_server_is_lost,
    responses.test_fatal_error_with_fields,
    responses.test_answers_go_out_as_they_are_ready,
    responses.test_same_tag_twice_is_answered_twice,
    responses.test_strays_are_counted_and_ignored,
    responses.test_cancelled_from_outside_while_it_runs_it_is_answered,
    test_admission.test_nothing_is_read_until_it_is_decided,
    test_admission.test_one_refusal_costs_the_others_nothing,
    test_admission.test_server_that_closes_meanwhile,
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


@pytest.mark.parametrize("is_async", [False, True])
def test_admission_by_certificate_on_uvloop(
    is_async: bool, certificates: Certificates, tmp_path: Path
) -> None:
    run(test_admission.test_by_certificate(is_async, certificates, tmp_path))


@pytest.mark.parametrize("with_tls", [False, True])
def test_peer_credentials_on_uvloop(
    with_tls: bool, certificates: Certificates, tmp_path: Path
) -> None:
    run(test_peer_credentials.test_both_ends_see_each_other(with_tls, certificates, tmp_path))


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


@pytest.mark.parametrize(
    "scenario",
    [
        test_handover.test_without_any_verification,
        test_handover.test_a_command_of_ones_own,
        test_handover.test_calls_in_flight_both_ways_go_on,
        test_handover.test_while_a_peer_does_not_read_its_answers,
        test_handover.test_what_the_caller_says_meanwhile_goes_out_encrypted,
        test_handover.test_what_the_one_who_is_called_says_meanwhile_goes_out_encrypted,
        test_handover.test_an_ask_in_the_clear_behind_a_whole_handshake_is_never_run,
        test_handover.test_the_handshake_in_one_piece_with_the_answer,
        test_handover.test_the_handshake_in_one_piece_with_the_ask,
        test_handover.test_an_ask_in_one_piece_with_the_end_of_the_handshake,
        test_handover.test_byte_by_byte,
        test_handover.test_a_second_time_is_refused_here,
        test_handover.test_twice_at_once,
        test_handover.test_one_that_waits_its_turn_while_the_peer_begins,
        test_handover.test_a_peer_that_answers_and_never_shakes_hands,
        test_handover.test_cancelled_in_the_handshake,
        test_handover.test_the_peers_alert_is_the_cause,
        test_handover.test_what_was_answered_meanwhile_is_sent_before_the_end,
        test_transitions.test_over_tls_and_behind_start_tls,
        test_transitions.test_encrypted_bytes_in_one_piece_with_the_ask,
    ],
    ids=lambda test: test.__name__,
)
def test_start_tls_on_uvloop(scenario: Test, certificates: Certificates) -> None:
    run(scenario(certificates))


@pytest.mark.parametrize("kind", test_handover.KINDS)
def test_both_begin_tls_on_uvloop(kind: str, certificates: Certificates) -> None:
    run(test_handover.test_the_client_begins(kind, certificates))
    run(test_handover.test_the_server_begins_and_both_are_verified(kind, certificates))


@pytest.mark.parametrize("caller", ["client", "server"])
def test_start_tls_refused_on_uvloop(caller: str, certificates: Certificates) -> None:
    run(test_handover.test_an_authority_that_is_not_trusted(caller, certificates))
    run(test_handover.test_while_the_transports_are_full(caller, certificates))


@pytest.mark.parametrize("phase", test_handover.PHASES)
def test_closing_at_each_phase_on_uvloop(phase: str, certificates: Certificates) -> None:
    run(test_handover.test_closing_at_once(phase, certificates))
    run(test_handover.test_a_peer_that_vanishes(phase, "closes", certificates))


@pytest.mark.parametrize("kind", test_transitions.KINDS)
def test_switch_on_uvloop(kind: str) -> None:
    run(test_transitions.test_both_sides_speak_at_once(kind))
    run(test_transitions.test_streams(kind))


@pytest.mark.parametrize(
    "scenario",
    [
        test_transitions.test_what_follows_the_answer_at_once_is_the_protocols,
        test_transitions.test_a_buffered_protocol,
        test_transitions.test_a_full_transport,
        test_transitions.test_calls_responders_and_hooks,
    ],
    ids=lambda test: test.__name__,
)
def test_switching_on_uvloop(scenario: Test) -> None:
    run(scenario())


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


def run_in_directory(scenario: Test, directory: Path) -> None:
    """Run a test that may want a directory, and nothing else."""
    names = inspect.signature(scenario).parameters
    run_without_leftovers(scenario(**dict.fromkeys(names, directory)))


@pytest.mark.parametrize(
    "scenario",
    [
        pipes.test_bytes_go_both_ways,
        pipes.test_writer_is_paused_while_the_peer_does_not_read,
        pipes.test_reading_can_be_paused,
        pipes.test_close_sends_what_is_left,
        pipes.test_nothing_is_received_after_close,
        pipes.test_abort_sends_nothing_more,
        pipes.test_abort_after_close,
        pipes.test_end_of_the_peer_closes,
        pipes.test_protocol_may_go_on_writing_after_the_end_of_the_peer,
        pipes.test_what_came_before_the_write_side_broke_is_read,
        pipes.test_writer_that_was_paused_goes_on_when_the_write_side_broke,
        pipes.test_modes_are_restored,
        pipes.test_what_the_peer_writes_after_close_is_thrown_away,
        processes.test_entered_and_awaited,
        processes.test_state_and_hooks,
        processes.test_other_children_hold_no_pipe_open,
        processes.test_answer_before_the_end_arrives,
        processes.test_child_that_goes_on_is_terminated,
        processes.test_child_that_writes_after_the_end,
        processes.test_child_whose_own_child_holds_the_pipes,
        processes.test_task_that_holds_the_connection_is_cancelled,
        processes.test_cancelled_twice_while_it_opens,
        processes.test_cancelled_while_the_program_is_sought,
        processes.test_cancelled_during_the_hooks,
        stdio.test_both_sides_of_two_pipes,
        stdio.test_one_socket_for_both_directions,
        stdio.test_who_gives_up_opening_a_socket_hears_of_the_end,
        stdio.test_standard_streams_lead_elsewhere_for_good,
        stdio.test_modes_of_standard_streams_are_restored,
    ],
    ids=lambda test: test.__name__,
)
def test_pipes_on_uvloop(scenario: Test, tmp_path: Path) -> None:
    run_in_directory(scenario, tmp_path)


@pytest.mark.parametrize("fds", processes.FDS, ids=str)
@pytest.mark.parametrize(
    "scenario",
    [
        processes.test_calls_both_ways,
        processes.test_ten_megabytes_both_ways_at_once,
        processes.test_no_descriptor_of_ours,
        processes.test_child_that_is_killed,
        processes.test_child_that_goes_on_in_spite_of_that_is_killed,
    ],
    ids=lambda test: test.__name__,
)
def test_processes_on_uvloop(scenario: Test, fds: tuple[int, int]) -> None:
    run_without_leftovers(scenario(fds))


@pytest.mark.parametrize("fds", processes.FDS, ids=str)
@pytest.mark.parametrize(
    "scenario",
    [
        processes.test_program_that_is_not_there,
        processes.test_program_that_may_not_be_executed,
        processes.test_directory_that_is_not_there,
    ],
    ids=lambda test: test.__name__,
)
def test_no_process_on_uvloop(scenario: Test, fds: tuple[int, int], tmp_path: Path) -> None:
    run_without_leftovers(scenario(fds, tmp_path))


@pytest.mark.parametrize(
    "scenario",
    [
        worker_pools.test_calls_are_answered_by_plain_functions_and_by_async_ones,
        worker_pools.test_boxes_as_they_are,
        worker_pools.test_a_call_in_the_very_turn_in_which_its_worker_is_lost,
        worker_pools.test_killing_workers_under_load_loses_no_idempotent_call,
        worker_pools.test_a_caller_that_is_cancelled_leaves_no_stuck_worker,
        worker_pools.test_a_worker_that_had_enough_is_replaced_without_a_wait,
        worker_pools.test_cancelling_the_opening_leaves_nothing,
        worker_pools.test_closing_while_it_opens,
        worker_pools.test_closing_finishes_what_was_called,
    ],
    ids=lambda test: test.__name__,
)
def test_worker_pools_on_uvloop(scenario: Test, tmp_path: Path) -> None:
    run_in_directory(scenario, tmp_path)


@pytest.mark.parametrize("fds", processes.FDS, ids=str)
@pytest.mark.parametrize("turns", range(14))
def test_process_cancelled_while_it_opens_on_uvloop(fds: tuple[int, int], turns: int) -> None:
    run_without_leftovers(processes.test_cancelled_while_it_opens(fds, turns))


@pytest.mark.parametrize("turns", range(8))
def test_pipes_cancelled_while_they_are_joined_on_uvloop(turns: int) -> None:
    run_without_leftovers(pipes.test_cancelled_while_it_joins(turns))


def run_without_leftovers(scenario: Coroutine[Any, Any, None]) -> None:
    async def checked() -> None:
        async with processes.script("cat >/dev/null"):
            pass  # the first process of all lets uvloop open what it keeps
        leftovers = Leftovers()
        await scenario
        await leftovers.check()

    run(checked())

"""What we use of flwr beyond its public names, held against the installed release."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from packaging.specifiers import SpecifierSet

from comity.adapters.flower import private_names


def test_the_installed_flwr_is_one_that_we_support() -> None:
    assert importlib.metadata.version("flwr") in SpecifierSet(">=1.41,<1.43")


def test_an_apps_own_message_takes_its_identity_from_the_run() -> None:
    private_names.enter_run(77)
    message = Message(RecordDict(), 5, "query.mine")
    assert message.metadata.run_id == 77
    assert message.metadata.src_node_id == private_names.COORDINATOR_NODE == 1
    assert message.metadata.message_id == ""


def test_an_empty_run_has_its_number_and_no_overrides() -> None:
    run = private_names.empty_run(9)
    assert (run.run_id, run.override_config) == (9, {})


def test_a_message_can_be_given_its_id() -> None:
    private_names.enter_run(1)
    message = Message(RecordDict(), 5, "train")
    private_names.name_message(message, "m-1")
    assert message.metadata.message_id == "m-1"


def test_a_message_is_rebuilt_from_its_metadata_and_answered_by_public_means() -> None:
    metadata = Metadata(
        run_id=1,
        message_id="m-1",
        src_node_id=1,
        dst_node_id=5,
        reply_to_message_id="",
        group_id="g",
        created_at=0.0,
        ttl=1e12,
        message_type="train",
    )
    request = private_names.with_metadata(metadata, RecordDict())
    for outcome in (RecordDict(), Error(private_names.APP_RAISED, "ValueError")):
        reply = private_names.reply_to(request, outcome, "r-1")
        assert reply.metadata.reply_to_message_id == "m-1"
        assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (5, 1)
        assert (reply.metadata.message_id, reply.metadata.group_id) == ("r-1", "g")
        assert reply.has_error() == isinstance(outcome, Error)


def test_the_error_code_means_what_flower_means_by_it() -> None:
    assert private_names.APP_RAISED == 2


def test_a_grid_must_have_exactly_the_methods_that_ours_has() -> None:
    assert Grid.__abstractmethods__ == {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }


def test_a_context_is_built_from_these_fields() -> None:
    fields: dict[str, Any] = {"run_id": 1, "node_id": 2, "node_config": {}, "run_config": {}}
    assert Context(**fields, state=RecordDict()).node_id == 2


def test_a_client_app_is_called_with_message_and_context() -> None:
    app = ClientApp()

    @app.query("echo")
    def echo(message: Message, context: Context) -> Message:
        del context
        return Message(message.content, reply_to=message)

    private_names.enter_run(1)
    message = Message(RecordDict(), 5, "query.echo")
    assert app(message, Context(1, 5, {}, RecordDict(), {})).content == RecordDict()

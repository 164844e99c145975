"""A run with its own live view: the picture comes over MQTT, as any other subscriber would see it."""

import threading
from typing import Any

from rich.console import Console

from edge_app.errors import UserError
from edge_app.messaging.live_view import LiveView, is_dumb
from edge_app.messaging.mqtt_url import broker_address
from edge_app.pipeline import Pipeline

__all__ = ["run_with_view"]


def run_with_view(pipeline: Pipeline, *, console: Console | None = None) -> dict[str, Any]:
    """Run a pipeline in a thread while the terminal shows what it publishes; returns its result.

    Where standard output is no terminal the run goes on without a picture, and says so.

    Raises
    ------
    UserError
        If nothing is published, or as :meth:`Pipeline.run`.
    """
    settings = pipeline.settings.mqtt
    if not settings.enabled:
        raise UserError('--live: needs a broker, but mqtt.url is "off"')
    console = console or Console()
    result: dict[str, Any] = {}
    failure: list[BaseException] = []
    # Lines for people would tear the picture apart; they are shown after it.
    held: list[str] = []
    tell, pipeline.on_message = pipeline.on_message, held.append

    def work() -> None:
        try:
            result.update(pipeline.run())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="pipeline")
    thread.start()
    if is_dumb(console):
        thread.join()
    else:
        while thread.is_alive() and not pipeline.publisher_url:
            thread.join(0.05)
        if pipeline.publisher_url:
            address = broker_address(pipeline.publisher_url, settings)
            with LiveView(
                address, site=settings.site, device=settings.device_id, prefix=settings.prefix, console=console
            ):
                # The last picture shows the end of the run, so it stays until everything has arrived.
                thread.join()
        thread.join()
    for line in held:
        tell(line)
    if failure:
        raise failure[0]
    return result

"""Reads windows of any length from a meter bridge, piece by piece.

Not here: what the pieces are (`meter_api`), and what becomes of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

from shared.kernel.errors import DataError, EpiError, InfrastructureError
from shared.wire.client import AgentClient
from shared.wire.meter_api import SamplePiece

OnTrouble = Callable[[EpiError], Awaitable[None]]
"""Called when a piece could not be read: returns when it is to be asked for again, raises to give up."""


async def give_up(error: EpiError) -> None:
    """Ask for nothing again."""
    raise error


async def sample_pieces(
    client: AgentClient,
    start_utc_ns: int,
    end_utc_ns: int,
    calibration: str | None = None,
    *,
    on_trouble: OnTrouble = give_up,
) -> AsyncIterator[SamplePiece]:
    """Yield the pieces of [start, end) in order, each read on its own; only the last has a `window`.

    `calibration` is an id, `raw`, or None for the newest.

    Raises:
        EpiError: what `on_trouble` raises; InfrastructureError also when the pieces do not make up the whole.
    """
    params: dict[str, int | str] = {"start_utc_ns": start_utc_ns, "end_utc_ns": end_utc_ns}
    if calibration is not None:
        params["calibration"] = calibration
    last_utc_ns, n_samples = -1, 0
    while True:
        try:
            piece = await _piece(client, params)
        except EpiError as error:
            await on_trouble(error)
            continue
        if piece.utc_ns and piece.utc_ns[0] <= last_utc_ns:
            raise _broken(client, "they go back in time")
        last_utc_ns = piece.utc_ns[-1] if piece.utc_ns else last_utc_ns
        n_samples += len(piece.utc_ns)
        if piece.window is not None and piece.window.n_samples != n_samples:
            raise _broken(client, f"{n_samples} samples came of {piece.window.n_samples}")
        yield piece
        if piece.next is None:
            return
        params["cursor"] = piece.next


async def _piece(client: AgentClient, params: dict[str, int | str]) -> SamplePiece:
    answer = await client.request("GET", "/v1/samples/piece", params=params, patient=False)
    try:
        piece = await client.read(SamplePiece, answer)
    except DataError as error:
        raise _broken(client, error.message) from error
    if (piece.next is None) == (piece.window is None):
        raise _broken(client, "it is neither the last nor followed by another")
    return piece


def _broken(client: AgentClient, why: str) -> InfrastructureError:
    return InfrastructureError(
        f"the pieces of the trace do not fit: {why}", where=client.base_url, hint="is it the lab's meter bridge?"
    )

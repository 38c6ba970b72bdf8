"""Other outputs of nvidia-smi beside the XML, for machines that a person saved by hand.

The fullest output gives the cards, the others fill what it leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.nvidia_smi.listing import read_list
from multigpu.parse.nvidia_smi.query_gpu import read_query_gpu
from multigpu.parse.nvidia_smi.table import read_table
from multigpu.parse.nvidia_smi.text import read_text
from multigpu.parse.reading import Reading
from multigpu.parse.same_card import filled, same_card
from multigpu.parse.shape import tool

# Command -> reader, the fullest first.
OUTPUTS: dict[str, Callable[[str], Reading[Query]]] = {
    "nvidia-smi -q": read_text,
    "nvidia-smi --query-gpu": read_query_gpu,
    "nvidia-smi": read_table,
    "nvidia-smi -L": read_list,
}


def completed(query: Query, tools: dict[str, object]) -> Query:
    """The cards of the XML with what other outputs know; their cards where there is no XML."""
    for command, read in OUTPUTS.items():
        if (record := tool(tools, command)).stdout.strip():
            query = _merged(query, read(record.stdout).value)
    return query


def _merged(query: Query, other: Query) -> Query:
    if not query.gpus:
        return replace(other, driver=query.driver or other.driver, cuda=query.cuda or other.cuda)
    return replace(
        query,
        driver=query.driver or other.driver,
        cuda=query.cuda or other.cuda,
        simulated=query.simulated or other.simulated,
        gpus=tuple(filled(gpu, same_card(gpu, other.gpus)) for gpu in query.gpus),
    )

"""A plan as text for the terminal and as a table for the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.surgery.plan import Plan

_SHOWN = 6  # members of a group that are named before the rest is counted


def to_text(plan: Plan) -> str:
    """The headline, the groups as a tree with what is tied to them, and what cannot be pruned and why."""
    lines = [headline(plan)]
    for part in plan.parts:
        units = f"units of {part.width} rows" if part.width > 1 else "channels"
        lines.append(f"├─ {part.name}: {part.removed} of {part.channels} {units} removed")
        lines.append(f"│    made by {_some(part.made_by)}")
        if others := [name for name in part.members if name not in part.made_by]:
            lines.append(f"│    tied to {_some(others)}")
    if plan.frozen:
        lines.append("└─ not pruned")
        lines += [f"     {part.name}: {part.channels} channels stay: {part.reason}" for part in plan.frozen]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def to_html(plan: Plan) -> str:
    """The same as a table. Colours are the page's own, so that it reads in light and dark."""
    head = "".join(f'<th scope="col" style="text-align:left">{h}</th>' for h in ("channels of", "removed", "tied to"))
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left"><code>{escape(part.name)}</code></th>'
        f'<td style="text-align:left">{part.removed:,} of {part.channels:,}</td>'
        f'<td style="text-align:left">{escape(_some(part.members))}</td></tr>'
        for part in plan.parts
    )
    frozen = "".join(
        f'<tr><th scope="row" style="text-align:left"><code>{escape(part.name)}</code></th>'
        f'<td style="text-align:left">none of {part.channels:,}</td>'
        f'<td style="text-align:left">{escape(part.reason)}</td></tr>'
        for part in plan.frozen
    )
    notes = "".join(f'<p style="margin:0.2em 0">{escape(note)}</p>' for note in plan.notes)
    label = escape(f"Plan for {plan.model}: what is removed, group by group", quote=True)
    return (
        f'<div class="prunelab-plan"><p style="margin:0.2em 0">{escape(headline(plan))}</p>{notes}'
        f'<div role="region" aria-label="{label}" tabindex="0" style="overflow-x:auto">'
        f'<table aria-label="{label}"><thead><tr>{head}</tr></thead><tbody>{rows}{frozen}</tbody></table></div></div>'
    )


def headline(plan: Plan) -> str:
    return (
        f"{plan.model}: {_change('parameters', *plan.params)}, {_change('MACs', *plan.macs)}, "
        f"{len(plan.parts)} coupled groups, {len(plan.frozen)} that stay"
    )


def _change(what: str, before: int, after: int) -> str:
    share = f" ({after / before:.3f})" if before else ""
    return f"{before:,} → {after:,} {what}{share}"


def _some(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown

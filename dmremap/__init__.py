# SPDX-License-Identifier: GPL-2.0-only
"""The control plane of dm-remap, for programs.

What `__all__` names is public: the verbs of dmremapctl as functions, what they return, and the
errors that they raise. Everything else may change from one version to the next. A verb answers with
a frozen dataclass, which `to_dict` turns into what `dmremapctl -o json` prints under "data"; sizes
are in sectors of 512 bytes unless the name ends in _bytes. Sentences and next steps are for people;
programs go by the codes.

    import dmremap

    for found in dmremap.find().sets:
        if found.state == "stopped":
            dmremap.assemble(found.uuid)

Imports run one way: cli -> api -> monitor, selftest -> health -> sets -> dm, ondisk -> host ->
errors. Nothing does I/O at import, and nothing is imported before it is used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dmremap.api.answer import Answer, to_dict
    from dmremap.api.assemble import Assembled, Assembly, assemble
    from dmremap.api.backup import Exported, Imported, export_metadata, import_metadata
    from dmremap.api.check import Checked, MetadataBlock, MetadataCopy, check
    from dmremap.api.create import Created, adopt, create
    from dmremap.api.events import Event, Events, Hook, Source, events, watch
    from dmremap.api.examine import Examined, Held, SetOnDisk, Tag, examine
    from dmremap.api.explain import Code, Codes, explain
    from dmremap.api.find import Set, Sets, find
    from dmremap.api.grow import Grown, grow
    from dmremap.api.judge import Judged, Judgement, judge
    from dmremap.api.metadata import BlockWrite, Compared, Epoch, Finding, Loading
    from dmremap.api.module import (
        ModuleAnswer,
        ModuleChange,
        Versions,
        load_module,
        module_status,
        unload_module,
        versions,
    )
    from dmremap.api.remove import Removal, Removed, remove
    from dmremap.api.repair import (
        Accepted,
        Repaired,
        Tagged,
        accept_older_spare,
        repair,
        retag,
        tag_is_content,
    )
    from dmremap.api.scrub import Scrubbed, Scrubbing, scrub
    from dmremap.api.selftest import Phase, SelfTest, self_test
    from dmremap.api.status import SetStatus, Statuses, Table, Target, status
    from dmremap.dm.lines import ErrorPolicy
    from dmremap.dm.lines import Status as TargetStatus
    from dmremap.dm.module import ModuleStatus
    from dmremap.errors import (
        Busy,
        DmRemapError,
        Exit,
        Failure,
        Interrupted,
        KernelError,
        NotFound,
        Partial,
        PermissionDenied,
        Refused,
        Usage,
    )
    from dmremap.health import Reason
    from dmremap.health import State as HealthState
    from dmremap.host.sizes import binary_size
    from dmremap.ondisk import Errors as RecordedErrors
    from dmremap.ondisk import SetState
    from dmremap.ondisk.findings import Severity
    from dmremap.ondisk.load import Counts as SlotCounts
    from dmremap.selftest import Backing
    from dmremap.sets.extent import Size
    from dmremap.sets.scrub import Gone as GoneCopy

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "Answer",
    "Assembled",
    "Assembly",
    "Backing",
    "BlockWrite",
    "Busy",
    "Checked",
    "Code",
    "Codes",
    "Compared",
    "Created",
    "DmRemapError",
    "Epoch",
    "ErrorPolicy",
    "Event",
    "Events",
    "Examined",
    "Exit",
    "Exported",
    "Failure",
    "Finding",
    "GoneCopy",
    "Grown",
    "HealthState",
    "Held",
    "Hook",
    "Imported",
    "Interrupted",
    "Judged",
    "Judgement",
    "KernelError",
    "Loading",
    "MetadataBlock",
    "MetadataCopy",
    "ModuleAnswer",
    "ModuleChange",
    "ModuleStatus",
    "NotFound",
    "Partial",
    "PermissionDenied",
    "Phase",
    "Reason",
    "RecordedErrors",
    "Refused",
    "Removal",
    "Removed",
    "Repaired",
    "Scrubbed",
    "Scrubbing",
    "SelfTest",
    "Set",
    "SetOnDisk",
    "SetState",
    "SetStatus",
    "Sets",
    "Severity",
    "Size",
    "SlotCounts",
    "Source",
    "Statuses",
    "Table",
    "Tag",
    "Tagged",
    "Target",
    "TargetStatus",
    "Usage",
    "Versions",
    "__version__",
    "accept_older_spare",
    "adopt",
    "assemble",
    "binary_size",
    "check",
    "create",
    "events",
    "examine",
    "explain",
    "export_metadata",
    "find",
    "grow",
    "import_metadata",
    "judge",
    "load_module",
    "module_status",
    "remove",
    "repair",
    "retag",
    "scrub",
    "self_test",
    "status",
    "tag_is_content",
    "to_dict",
    "unload_module",
    "versions",
    "watch",
]

# Where they are: module -> names, "theirs=ours" where they differ.
_HOMES = {
    "dmremap.api.answer": "Answer to_dict",
    "dmremap.api.assemble": "Assembled Assembly assemble",
    "dmremap.api.backup": "Exported Imported export_metadata import_metadata",
    "dmremap.api.check": "Checked MetadataBlock MetadataCopy check",
    "dmremap.api.create": "Created adopt create",
    "dmremap.api.events": "Event Events Hook Source events watch",
    "dmremap.api.examine": "Examined Held SetOnDisk Tag examine",
    "dmremap.api.explain": "Code Codes explain",
    "dmremap.api.find": "Set Sets find",
    "dmremap.api.grow": "Grown grow",
    "dmremap.api.judge": "Judged Judgement judge",
    "dmremap.api.metadata": "BlockWrite Compared Epoch Finding Loading",
    "dmremap.api.module": "ModuleAnswer ModuleChange Versions load_module module_status "
    "unload_module versions",
    "dmremap.api.remove": "Removal Removed remove",
    "dmremap.api.repair": "Accepted Repaired Tagged accept_older_spare repair retag tag_is_content",
    "dmremap.api.scrub": "Scrubbed Scrubbing scrub",
    "dmremap.api.selftest": "Phase SelfTest self_test",
    "dmremap.api.status": "SetStatus Statuses Table Target status",
    "dmremap.dm.lines": "ErrorPolicy Status=TargetStatus",
    "dmremap.dm.module": "ModuleStatus",
    "dmremap.errors": "Busy DmRemapError Exit Failure Interrupted KernelError NotFound Partial "
    "PermissionDenied Refused Usage",
    "dmremap.health": "Reason State=HealthState",
    "dmremap.ondisk": "Errors=RecordedErrors SetState",
    "dmremap.ondisk.findings": "Severity",
    "dmremap.ondisk.load": "Counts=SlotCounts",
    "dmremap.host.sizes": "binary_size",
    "dmremap.selftest": "Backing",
    "dmremap.sets.extent": "Size",
    "dmremap.sets.scrub": "Gone=GoneCopy",
}


if not TYPE_CHECKING:  # it would let every name pass

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for."""
        for module, names in _HOMES.items():
            for word in names.split():
                theirs, _, ours = word.partition("=")
                if name == (ours or theirs):
                    from importlib import import_module

                    found: object = getattr(import_module(module), theirs)
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__]

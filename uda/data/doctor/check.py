"""The check itself: files are listed, read and judged."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uda.data.doctor.contents import ContentSummary, check_contents
from uda.data.doctor.file_facts import FactsCache, Job, read_files
from uda.data.doctor.findings import Finding
from uda.data.doctor.images import duplicates
from uda.data.doctor.listing import Listing, list_files_of, twice_used
from uda.data.doctor.plan import Plan
from uda.data.doctor.pseudo_labels import PseudoLabels, check_pseudo_labels, list_pseudo_labels
from uda.data.toy_city.city import is_toy_city
from uda.labels.spaces import LabelSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was checked and what was found."""

    root: Path
    sets: list[tuple[Listing, ContentSummary]]
    pseudo_labels: list[PseudoLabels]
    findings: list[Finding]  # problems first
    files: int  # that the check is about
    files_read: int  # the others had not changed since the last check
    seconds: float
    header_only: bool  # of images

    @property
    def problems(self) -> int:
        return sum(finding.severity == "problem" for finding in self.findings)


def check_data(
    plan: Plan,
    root: Path,
    cache: FactsCache,
    *,
    workers: int,
    header_only: bool = False,
    progress: Callable[[Iterator[Any], int], Iterable[Any]],
) -> Report:
    """Looks at every file of `plan`; nothing that is wrong with one stops it.

    header_only: images are not decoded, so one that is cut short is not found. Labels always are.
    """
    begin, genuine = time.monotonic(), not is_toy_city(root)
    listings: list[Listing] = []
    findings: list[Finding] = []
    for wish in plan.wishes:
        listing, found = list_files_of(wish, root, genuine=genuine)
        listings.append(listing)
        findings += found
    findings += [*twice_used(listings), *duplicates(listings)]
    folders, found = _pseudo_labels(plan, listings)
    findings += found
    jobs = _jobs(listings, folders, header_only=header_only)
    facts, files_read = read_files(jobs, cache, workers=workers, progress=progress)
    sets = []
    for listing in listings:
        summary, found = check_contents(listing, facts)
        sets.append((listing, summary))
        findings += found
    for folder in folders:
        findings += check_pseudo_labels(folder, facts, _label_space(plan))
    return Report(
        root=root,
        sets=sets,
        pseudo_labels=folders,
        findings=sorted(findings, key=lambda finding: finding.severity != "problem"),
        files=len(facts),
        files_read=files_read,
        seconds=time.monotonic() - begin,
        header_only=header_only,
    )


def _label_space(plan: Plan) -> LabelSpace:
    return plan.wishes[0].layout.label_space


def _pseudo_labels(plan: Plan, listings: list[Listing]) -> tuple[list[PseudoLabels], list[Finding]]:
    strict = plan.target is not None
    targets = [item for item in listings if not strict or item.wish.name in (plan.target or ())]
    folders, findings = [], []
    for path in plan.pseudo_labels:
        folder, found = list_pseudo_labels(
            path, targets, _label_space(plan), subset=plan.subset, strict=strict
        )
        folders += [folder] if folder is not None else []
        findings += found
    return folders, findings


def _jobs(listings: list[Listing], folders: list[PseudoLabels], *, header_only: bool) -> list[Job]:
    jobs = []
    for listing in listings:
        for sample in listing.samples:
            jobs.append(Job(sample.image, "image", header_only))
            if sample.labels is not None:
                coding = listing.wish.layout.label_space.coding
                jobs.append(Job(sample.labels, "labels", coding=coding))
    return jobs + [Job(path, "labels") for folder in folders for path in folder.files]

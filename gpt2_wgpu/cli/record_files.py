"""Files of records, JSON Lines or CSV: input read lazily, output that is continued after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.strict_json import parse

Record = dict[str, Any]
SUFFIXES = (".jsonl", ".csv")


class RecordFile:
    """File of records, by its suffix JSON Lines (an object a line) or CSV (with a header)."""

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidArgumentError(f"{path} must end with {' or '.join(SUFFIXES)}")
        self.path = path
        self._is_csv = path.suffix.lower() == ".csv"

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; InvalidArgumentError for a malformed one, with its line."""
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                yield from self._csv_records(file) if self._is_csv else self._objects(file)
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{self.path} is not valid UTF-8: {error.reason}") from None
        except OSError as error:
            raise InvalidArgumentError(f"cannot read {self.path}: {error.strerror}") from None

    def _objects(self, lines: Iterable[str]) -> Iterator[Record]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = parse(line.encode())
            except ValueError as error:
                raise InvalidArgumentError(f"{self.path}, line {number}: {error}") from None
            if not isinstance(record, dict):
                raise InvalidArgumentError(
                    f"{self.path}, line {number} must be a JSON object, not {shown(record)}"
                )
            yield record

    def _csv_records(self, lines: Iterable[str]) -> Iterator[Record]:
        reader = csv.DictReader(lines, strict=True)
        try:
            for record in reader:
                fields = len(reader.fieldnames or ())
                if None in record or None in record.values():
                    raise InvalidArgumentError(
                        f"{self.path}, line {reader.line_num} must have {fields} fields, as the "
                        "header"
                    )
                yield record
        except csv.Error as error:
            raise InvalidArgumentError(f"{self.path}, line {reader.line_num}: {error}") from None

    def cut_incomplete(self) -> None:
        """Remove the end of a record whose writing was interrupted."""
        with self.path.open("r+b") as file:
            file.truncate(_complete(file.read(), quoted=self._is_csv))

    def append(self, records: list[Record]) -> None:
        """Append records, on the disk when this returns.

        InvalidArgumentError if the file cannot be written.
        """
        text = io.StringIO(newline="")
        if self._is_csv:
            writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
            if not self.path.exists() or not self.path.stat().st_size:
                writer.writeheader()
            writer.writerows(records)
        else:
            text.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in records)
        try:
            with self.path.open("ab") as file:
                file.write(text.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InvalidArgumentError(f"cannot write {self.path}: {error.strerror}") from None


def _complete(data: bytes, *, quoted: bool) -> int:
    """Return the length of the complete records at the start of ``data``.

    A record ends with a newline, in CSV with one outside of quotes.
    """
    if not quoted:
        return data.rfind(b"\n") + 1
    position = end = quotes = 0
    for line in data.split(b"\n")[:-1]:  # the last one has no newline
        position += len(line) + 1
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            end = position
    return end

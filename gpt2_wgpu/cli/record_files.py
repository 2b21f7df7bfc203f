"""Files of records, JSON Lines or CSV: input read lazily, output that is continued after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.strict_json import parse

Record = dict[str, Any]


class RecordFile:
    """File of records, by its suffix JSON Lines (an object a line) or CSV (with a header)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_csv = path.suffix.lower() == ".csv"

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; InvalidArgumentError for a malformed one, with its line."""
        try:
            with self.path.open("rb") as file:
                yield from self._records(file)
        except OSError as error:
            raise InvalidArgumentError(f"cannot read {self.path}: {error.strerror}") from None

    def complete(self) -> tuple[Iterator[Record], bytes, int]:
        """Return the complete records, all bytes of the file, and the length of those records."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InvalidArgumentError(f"cannot read {self.path}: {error.strerror}") from None
        length = _complete(data, quoted=self.is_csv)
        return self._records(io.BytesIO(data[:length])), data, length

    def _records(self, file: IO[bytes]) -> Iterator[Record]:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            yield from self._csv_records(lines) if self.is_csv else self._objects(lines)
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{self.path} is not valid UTF-8: {error.reason}") from None

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
            for name in (names := list(reader.fieldnames or ())):
                if names.count(name) > 1:
                    raise InvalidArgumentError(
                        f"the header of {self.path} has the field {shown(name)} twice: rename one"
                    )
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

    def cut(self, length: int) -> None:
        """Keep the first ``length`` bytes; InvalidArgumentError if the file cannot be written."""
        try:
            os.truncate(self.path, length)
        except OSError as error:
            raise InvalidArgumentError(f"cannot write {self.path}: {error.strerror}") from None

    def append(self, records: list[Record], *, anew: bool = False) -> None:
        """Append records, or replace the file by them; they are on the disk when this returns.

        InvalidArgumentError if the file cannot be written.
        """
        try:
            with self.path.open("wb" if anew else "ab") as file:
                names = self._header() if file.tell() else None
                file.write(self.encoded(records, names))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InvalidArgumentError(f"cannot write {self.path}: {error.strerror}") from None

    def encoded(self, records: list[Record], names: list[str] | None = None) -> bytes:
        """Return records as the file holds them; a CSV file begins with a header without names."""
        if not self.is_csv:
            return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode()
        text = io.StringIO(newline="")
        if not records:
            return b""
        fields = names or list(records[0])
        # All are quoted: csv writes a lone carriage return without quotes, and cannot read it.
        writer = csv.DictWriter(text, fields, lineterminator="\n", quoting=csv.QUOTE_ALL)
        if names is None:
            writer.writeheader()
        writer.writerows(records)
        return text.getvalue().encode()

    def _header(self) -> list[str] | None:
        if not self.is_csv:
            return None
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file))


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

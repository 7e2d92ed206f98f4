"""Writes documents for ever and prints the name of each one that was acknowledged."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from comity.adapters.store.passages import TantivyPassageStore
from comity.ids import CollectionName, DocumentId, PassageId
from comity.ports import Document, Passage

GUIDES = CollectionName("guides")
store = TantivyPassageStore(Path(sys.argv[1]))
for number in count(int(sys.argv[2])):
    name = DocumentId(f"guides/{number}")
    text = f"alarm word{number}"
    passage = Passage(PassageId(f"p{number}"), name, GUIDES, "", 0, len(text), text)
    removes = [DocumentId(f"guides/{number - 1}")] if number % 3 == 2 else []
    store.write([Document(name, GUIDES, b"x", (passage,))], removes)
    print(number, flush=True)

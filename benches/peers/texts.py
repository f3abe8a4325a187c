"""The real texts that the measurements of the peers are filled with."""


def distinct_texts(data, count, characters):
    """`count` texts of at least `characters` characters each, beginning at different files.

    `data` is a directory with .txt files at any depth; a text that is too short goes on with the
    files after it.
    """
    files = sorted(data.rglob("*.txt"))
    if len(files) < count:
        raise SystemExit(f"{data}: {len(files)} .txt files, but {count} different texts are needed")
    for i in range(count):
        at, text = i * len(files) // count, ""
        while len(text) < characters:
            text += files[at % len(files)].read_text(encoding="utf-8") + "\n\n"
            at += 1
        yield text

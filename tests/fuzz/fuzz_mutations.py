"""Files as an accident or an author of bad intent would change them, drawn from a generator."""

import io
import pickletools
import struct
import zipfile
import zlib
from random import Random

_SIGNATURE = 8  # bytes that a PNG begins with
_SIZES = (0, 1, 2**7, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"gAMA",
           b"pHYs", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"cHRM", b"sRGB", b"XXXX")  # fmt: skip


def mutated_bytes(content: bytes, random: Random) -> bytes:
    """One to eight places flipped, cut, repeated, overwritten or put elsewhere."""
    data = bytearray(content)
    for _ in range(random.randint(1, 8)):
        place = random.randrange(len(data) + 1)
        length = random.choice((1, 2, 4, 16, 256))
        match random.randrange(6):
            case 0 if data:
                data[place % len(data)] ^= 1 << random.randrange(8)
            case 1:
                del data[place:]
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = random.randbytes(length)
            case 4:
                data[place : place + 4] = struct.pack("<I", random.choice(_SIZES))
            case _:
                data[place:place] = data[place : place + length]
    return bytes(data)


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], _SIGNATURE
    while place + 8 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        found.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def mutated_png(png: bytes, random: Random) -> bytes:
    """Chunks changed, dropped, doubled, added or in another order, under checksums that fit."""
    chunks = _chunks(png)
    for _ in range(random.randint(1, 3)):
        index = random.randrange(len(chunks)) if chunks else 0
        kind, content = chunks[index] if chunks else (b"IEND", b"")
        match random.randrange(7):
            case 0 if chunks:
                del chunks[index]
            case 1:
                chunks.insert(index, (kind, content))
            case 2:
                random.shuffle(chunks)
            case 3:
                added = random.choice(_CHUNKS), random.randbytes(random.randrange(40))
                chunks.insert(random.randrange(len(chunks) + 1), added)
            case 4 if kind == b"IHDR":
                chunks[index] = kind, _header(random)
            case 5 if kind == b"IDAT":
                size = random.choice((0, 1, 100, 10_000))
                chunks[index] = kind, zlib.compress(random.randbytes(size))
            case _:
                chunks[index : index + 1] = [(kind, mutated_bytes(content, random))]
    return png[:_SIGNATURE] + b"".join(_chunk(kind, content) for kind, content in chunks)


def mutated_picture(content: bytes, random: Random) -> bytes:
    """Of a PNG, mostly by its chunks; of other files, by bytes."""
    by_chunks = content.startswith(b"\x89PNG") and random.random() < 0.7
    return (mutated_png if by_chunks else mutated_bytes)(content, random)


def _header(random: Random) -> bytes:
    """Sizes up to two billion, and depths and kinds that there are or are not."""
    sides = [random.choice((1, 8, 16, 100, 5000, 100_000, *_SIZES)) for _ in range(2)]
    rest = (random.choice((1, 2, 4, 8, 16, 3)), random.randrange(8), *random.choices((0, 1), k=3))
    return struct.pack(">IIBBBBB", *sides, *rest)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def mutated_archive(archive: bytes, random: Random) -> bytes:
    """A file of torch.save whose members are changed, dropped, doubled or renamed, or whose pickle
    has other operations; the archive around them is a whole one."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    name = random.choice(list(members))
    match random.randrange(6):
        case 0:
            del members[name]
        case 1:
            members[random.choice(("../../x", "/x", "a" * 300, name + "/.."))] = members.pop(name)
        case 2:
            members[name] = mutated_bytes(members[name], random)
        case _:
            for _ in range(random.randint(1, 4)):
                members[pickled] = mutated_pickle(members[pickled], random)
    target = io.BytesIO()
    with zipfile.ZipFile(
        target, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as z:
        for member, content in members.items():
            z.writestr(member, content)
    return target.getvalue()


def mutated_archive_of_arrays(archive: bytes, random: Random) -> bytes:
    """A file of numpy.savez with one member changed, dropped or renamed; the archive is whole."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    name = random.choice(list(members))
    match random.randrange(4):
        case 0:
            del members[name]
        case 1:
            members[random.choice(("../../x", "/x", "a" * 300))] = members.pop(name)
        case _:
            members[name] = mutated_bytes(members[name], random)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as z:
        for member, content in members.items():
            z.writestr(member, content)
    return target.getvalue()


def mutated_pickle(content: bytes, random: Random) -> bytes:
    """One operation dropped, doubled, exchanged with another or given another argument."""
    try:
        places = [place for _, _, place in pickletools.genops(content) if place is not None]
    except Exception:  # was mutated before, and is no pickle any more
        return mutated_bytes(content, random)
    index = random.randrange(len(places))
    begin = places[index]
    end = places[index + 1] if index + 1 < len(places) else len(content)
    operation = content[begin:end]
    other = random.randrange(len(places) - 1) if len(places) > 1 else 0
    taken = content[places[other] : places[other + 1]] if len(places) > 1 else b""
    new = random.choice(
        (
            b"",
            operation * 2,
            taken,
            taken + operation,
            mutated_bytes(operation, random),
            *_OPERATIONS,
        )
    )
    return content[:begin] + new + content[end:]


_OPERATIONS = (
    b"N", b"]", b"}", b")", b"(", b"0", b"2", b"\x88", b"K\x00", b"J\xff\xff\xff\xff",
    b"\x8a\xff" + b"\x7f" * 255, b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b"cos\nsystem\n",
    b"cbuiltins\neval\n", b"cposix\nopen\n", b"X\x03\x00\x00\x00abc", b"R", b"b", b"s", b"u", b"t",
    b"\x81", b"Q", b"h\x00", b"\x95" + b"\xff" * 8,
)  # fmt: skip

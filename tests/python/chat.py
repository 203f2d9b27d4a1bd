"""A person who speaks Python: driven by tests/tests/bindings.rs, which is the other person.

Says on standard output, a line each, what is to be compared there; whatever is not as it should be ends it.
"""

import asyncio
import json
import pathlib
import sys

from magpie import (
    Client,
    ClientError,
    Config,
    ErrorCode,
    Kind,
    Message,
    Progress,
    Status,
)

PATIENCE_MS = 20_000


def tell(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


class Seen:
    """The events of a client: each is waited for, and none is passed over."""

    def __init__(self, client):
        self.client = client
        self.numbers = {}

    async def until(self, wanted):
        while True:
            event = await self.client.next_event(PATIENCE_MS)
            assert event is not None, "no such event in time"
            if event.is_entry():
                self.numbers.setdefault(event.conversation, []).append(event.entry.number)
            if wanted(event):
                return event

    async def words(self, conversation, words):
        def wanted(event):
            return event.is_entry() and event.conversation == conversation and event.entry.words == words

        return (await self.until(wanted)).entry

    def assert_in_order(self):
        for conversation, numbers in self.numbers.items():
            expected = list(range(numbers[0], numbers[0] + len(numbers)))
            assert numbers == expected, f"{conversation}: {numbers}"


class Noted(Progress):
    """How far a file is."""

    def __init__(self):
        self.far = []

    def progressed(self, done, total):
        self.far.append((done, total))


class Enough(Progress):
    def progressed(self, done, total):
        raise RuntimeError("enough of it")


async def refused(code, call):
    try:
        await call
    except ClientError.Refused as refusal:
        assert refusal.code == code, refusal
        return refusal
    raise AssertionError(f"not refused with {code}")


async def invalid(field, call):
    try:
        await call
    except ClientError.Invalid as error:
        assert error.field == field, error
        return
    raise AssertionError(f"{field} was taken")


async def refusals(client, config, stranger):
    """What may not be is an exception that says so, and nothing else happens."""
    refusal = await refused(ErrorCode.NOT_FOUND, client.find("nobody-at-all"))
    tell("refusal", code=refusal.code.name, retry_after_ms=refusal.retry_after_ms)
    await refused(ErrorCode.BAD_CREDENTIALS, client.change_password("wrong", "correct horse 2"))
    await refused(ErrorCode.NOT_FOUND, client.send_text(client.direct(stranger), "may I?"))
    await invalid("conversation", client.send_text("no id", "hello"))
    await invalid("user", client.create_group("a group", ["c0"]))
    await invalid("kind", client.send(client.direct(stranger), Message(kind=Kind.UNKNOWN(tag=77))))
    await invalid("text", client.send_text(client.direct(stranger), "long" * 10_000))
    try:
        await Client.open(config)
        raise AssertionError("two have the store")
    except ClientError.StoreInUse:
        pass
    try:
        client.history("c" + "z" * 32)
        raise AssertionError("that is no conversation")
    except ClientError.Invalid:
        pass


async def become_contacts(client, seen, rosa):
    await client.request_contact(rosa.user, "from Python")
    event = await seen.until(lambda event: event.is_inbox() and event.entry.body.is_contact_accepted())
    conversation = event.entry.body.conversation
    assert conversation == client.direct(rosa.user)
    # Both are in it from its third entry on.
    while not any(info.id == conversation and info.cursor >= 3 for info in client.conversations()):
        await seen.until(lambda event: event.is_entry())
    [card] = [card for card in await client.contacts() if card.user == rosa.user]
    assert card.state.name == "ACCEPTED" and card.handle == "rosa", card
    return conversation


async def talk(client, seen, rosa, direct):
    first = await client.send_text(direct, "hello from Python, 你好 🐦")
    await seen.words(direct, "hello from Rust, 你好 🦀")
    await client.edit(direct, first.number, "hello again from Python")
    await client.react(direct, first.number, "👍")
    slip = await client.send_text(direct, "a slip")
    await client.recall(direct, slip.number)
    place = Kind.LOCATION(latitude_e7=-338_567_844, longitude_e7=1_512_152_967, name="Opera", address="Sydney")
    await client.send(direct, Message(kind=place, quote=first.number, mentions=[rosa.user]))
    noted, content = Noted(), bytes(range(256)) * 1000
    picture = await client.upload_bytes(content, "image/png", noted)
    assert noted.far[-1] == (len(content), len(content)), noted.far
    await invalid("progress", client.upload_bytes(content[1:], "image/png", Enough()))
    await client.send(direct, Message(kind=Kind.PICTURE(blob=picture, width=8, height=9, preview=b"\x00\xff")))

    sending = client.queue(direct, Message(kind=Kind.TEXT(text="queued")))
    event = await seen.until(lambda event: event.is_posted())
    assert event.sending == sending and event.posted.conversation == direct, event

    def is_sign(event):
        return event.is_entry() and event.entry.body.is_reacted() and event.entry.sender == rosa.user

    signed = await seen.until(is_sign)
    [reaction] = client.reactions(direct, first.number, first.number)[1:]
    assert reaction.user == rosa.user and reaction.emoji == signed.entry.body.emoji == "🎶", reaction
    shown = {entry.number: entry for entry in client.history(direct, limit=1000)}
    assert shown[first.number].words == "hello again from Python"
    assert shown[slip.number].body.is_gone(), shown[slip.number]
    await client.mark_read(direct, first.number)


async def fetch(client, seen, direct, folder):
    entry = (await seen.until(lambda event: event.is_entry() and event.entry.words == "notes.txt")).entry
    file = entry.body.message.kind
    path = folder / "fetched"
    await client.download(direct, entry.number, file.blob, str(path))
    assert path.read_bytes() == b"notes" * 5000
    await client.send_file(direct, str(path), "text/plain")


async def talk_in_group(client, seen, rosa):
    group = await client.create_group("Both languages", [rosa.user])
    await client.send_text(group, "hello, group")
    await seen.words(group, "Rust in the group")
    info = await client.group(group)
    assert info.title == "Both languages" and info.owner == client.me().user, info
    assert sorted(info.members) == sorted([rosa.user, client.me().user]), info
    await client.announce(group, "read me")
    assert (await client.group(group)).announcement == "read me"
    return group


def kept(client, conversation):
    return [[entry.number, entry.sender, entry.words] for entry in client.history(conversation, limit=1000)]


async def come_back(config, me, direct, group):
    """The store knows who one is and what was said; what was missed comes."""
    client = await Client.open(config)
    seen = Seen(client)
    assert client.me() == me and client.status() == Status.OFFLINE
    before = kept(client, direct)
    assert any(words == "hello from Rust, 你好 🦀" for _, _, words in before), before
    try:
        await client.find("rosa")
        raise AssertionError("nobody is signed in")
    except ClientError.NotSignedIn:
        pass
    assert await client.resume() == me
    await seen.words(direct, "while you were away")
    await client.send_text(direct, "I am back")
    await seen.words(direct, "I am back")
    found = await client.search("你好")
    assert [hit.place.conversation for hit in found.messages] == [direct] and found.complete, found
    names = await client.search_names("ros")
    assert [contact.handle for contact in names.contacts] == ["rosa"], names
    seen.assert_in_order()
    assert {info.id for info in client.conversations()} == {direct, group}
    tell("history", direct=kept(client, direct), group=kept(client, group))
    await client.shutdown()
    assert client.status() == Status.CLOSED
    try:
        while True:
            await client.next_event(PATIENCE_MS)
    except ClientError.Closed:
        tell("closed")


async def main(server, ca, folder):
    folder = pathlib.Path(folder)
    config = Config(servers=[server], ca_pem=pathlib.Path(ca).read_bytes(), store=str(folder / "petra.db"))
    client = await Client.open(config)
    assert client.me() is None and client.status() == Status.OFFLINE
    assert await client.next_event(1) is None
    await refused(ErrorCode.BAD_CREDENTIALS, client.sign_in("petra", "correct horse"))
    me = await client.sign_up("petra", "correct horse")
    seen = Seen(client)
    await seen.until(lambda event: event.is_online())
    tell("signed up", user=me.user)
    rosa, sten = await client.find("rosa"), await client.find("sten")
    await refusals(client, config, sten.user)
    direct = await become_contacts(client, seen, rosa)
    tell("contacts", conversation=direct)
    await talk(client, seen, rosa, direct)
    await fetch(client, seen, direct, folder)
    group = await talk_in_group(client, seen, rosa)
    tell("group", conversation=group)
    seen.assert_in_order()
    await client.shutdown()
    tell("away")
    sys.stdin.readline()
    await come_back(config, me, direct, group)


asyncio.run(main(*sys.argv[1:]))

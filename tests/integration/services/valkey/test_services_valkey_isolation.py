# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two tenants on a real server: every access of one to what is the other's is tried and refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Facts, facts
from valkey_place import Place, password

# what a tenant does with its own keys: none of it must be refused
OWN = """
SET alice:s v
GET alice:s
HSET alice:h f v
RPUSH alice:l a b
SADD alice:set a
ZADD alice:z 1 a
XADD alice:x * f v
PFADD alice:hll a
SETBIT alice:bits 1 1
GEOADD alice:geo 13.4 52.5 berlin
INCR alice:n
EXPIRE alice:n 10
RENAME alice:s alice:s2
COPY alice:s2 alice:s3
LMOVE alice:l alice:l2 LEFT RIGHT
EVAL return(redis.call('GET',KEYS[1])) 1 alice:s2
SCRIPT LOAD return(1)
PUBLISH alice:news hello
MEMORY USAGE alice:s2
OBJECT ENCODING alice:s2
INFO server
CLIENT SETNAME alice
CLIENT ID
ACL WHOAMI
TIME
SELECT 1
SELECT 0
PING
DEL alice:s2
"""

# what one tenant must not do: with keys, channels, names, scripts and sessions of others, and with the server
FORBIDDEN = """
GET bob:s
SET bob:s mine
APPEND bob:s mine
SETRANGE bob:s 0 x
GETDEL bob:s
MGET alice:s bob:s
MSET alice:s 1 bob:s 2
DEL bob:s
UNLINK bob:s
EXPIRE bob:s 1
PERSIST bob:s
TTL bob:s
TYPE bob:s
EXISTS bob:s
TOUCH bob:s
OBJECT ENCODING bob:s
MEMORY USAGE bob:s
DUMP bob:s
RESTORE alice:r 0 x
COPY bob:s alice:stolen
COPY alice:s bob:s
RENAME bob:s alice:stolen
RENAME alice:s bob:s
RENAMENX bob:s alice:stolen
MOVE bob:s 1
SORT alice:l BY bob:* GET bob:*
SORT_RO alice:l GET bob:s
HGETALL bob:h
HSET bob:h f v
LRANGE bob:l 0 1
LMOVE bob:l alice:l LEFT LEFT
LMOVE alice:l bob:l LEFT LEFT
BLPOP bob:l 1
SMEMBERS bob:set
SINTERSTORE alice:set bob:set
SINTERSTORE bob:set alice:set
SUNION alice:set bob:set
ZRANGE bob:z 0 1
ZRANGESTORE alice:z bob:z 0 1
XRANGE bob:x - +
XADD bob:x * f v
XREAD STREAMS bob:x 0
XINFO STREAM bob:x
PFMERGE alice:hll bob:hll
PFCOUNT bob:hll
BITOP AND alice:bits bob:bits
GEOSEARCHSTORE alice:geo bob:geo FROMLONLAT 13 52 BYRADIUS 1000 km
WATCH bob:s
EVAL return(redis.call('GET',KEYS[1])) 1 bob:s
EVAL return(redis.call('GET','bob:s')) 0
EVAL return(redis.call('SET','bob:s','mine')) 0
EVAL return(redis.call('KEYS','*')) 0
EVAL return(redis.call('SCAN','0')) 0
EVAL return(redis.call('PUBLISH','bob:news','x')) 0
GET alice
GET alicebob:s
KEYS *
KEYS alice:*
SCAN 0
RANDOMKEY
DBSIZE
PUBLISH bob:news x
SPUBLISH bob:news x
SUBSCRIBE bob:news
SSUBSCRIBE bob:news
PSUBSCRIBE *
PSUBSCRIBE bob:*
PSUBSCRIBE alice*
SUBSCRIBE __keyevent@0__:set
PUBSUB CHANNELS
PUBSUB NUMSUB bob:news
PUBSUB NUMPAT
PUBSUB SHARDCHANNELS
CLIENT TRACKING ON BCAST
CLIENT LIST
CLIENT KILL USER bob
CLIENT PAUSE 1
CLIENT NO-EVICT ON
CLIENT UNBLOCK 1
FUNCTION LIST
FUNCTION FLUSH
FUNCTION DUMP
FUNCTION STATS
SCRIPT FLUSH
SCRIPT KILL
FLUSHDB
FLUSHALL
SWAPDB 0 1
MONITOR
CONFIG GET *
CONFIG SET maxmemory 1
CONFIG REWRITE
CONFIG RESETSTAT
ACL LIST
ACL USERS
ACL GETUSER bob
ACL SETUSER alice allkeys
ACL SETUSER bob nopass
ACL DELUSER bob
ACL LOG
ACL LOAD
ACL SAVE
ACL DRYRUN bob GET bob:s
SLOWLOG GET
LATENCY LATEST
MEMORY STATS
MEMORY PURGE
MODULE LIST
SAVE
BGSAVE
BGREWRITEAOF
LASTSAVE
SHUTDOWN NOSAVE
REPLICAOF 127.0.0.1 1
FAILOVER
ROLE
PSYNC ? -1
MIGRATE 127.0.0.1 1 alice:s 0 10
CLUSTER GETKEYSINSLOT 0 10
CLUSTER COUNTKEYSINSLOT 0
PFDEBUG ENCODING bob:hll
"""
STORED = """
SET bob:s secret
HSET bob:h f v
RPUSH bob:l a b
SADD bob:set a
ZADD bob:z 1 a
XADD bob:x * f v
"""


def words(place: Place, command: str) -> list[str]:
    """The command with the names that the tenants have here."""
    own = command.replace("alice", place.name("alice")).replace("bob", place.name("bob"))
    return own.strip().split(" ")


@pytest.fixture(scope="module")
def admin(place: Place) -> Iterator[redis.Redis]:
    with place.client() as client:
        yield client


@pytest.fixture(scope="module")
def known(admin: redis.Redis) -> Facts:
    """What the server tells about itself."""
    return facts(admin, "test")


@pytest.fixture(scope="module")
def tenants(place: Place) -> None:
    result = place.run(*(place.tenant(name, name) for name in ("alice", "bob")))
    assert not result["failed"], result["msg"]
    with place.client("bob", "bob") as bob:
        for command in STORED.strip().splitlines():
            bob.execute_command(*words(place, command))


@pytest.fixture
def alice(place: Place, tenants: None) -> Iterator[redis.Redis]:
    with place.client("alice", "alice") as client:
        for command in ("SET alice:s v", "DEL alice:l", "RPUSH alice:l a b"):
            client.execute_command(*words(place, command))
        yield client


def test_a_tenant_can_work_with_its_own(place: Place, alice: redis.Redis) -> None:
    for command in OWN.strip().splitlines():
        alice.execute_command(*words(place, command))


def stored(place: Place, admin: redis.Redis) -> list[str | None]:
    """What the other tenant has, as the server would dump it."""
    keys = [words(place, command)[1] for command in STORED.strip().splitlines()]
    return [admin.execute_command("DUMP", key) for key in keys]


@pytest.mark.parametrize("command", FORBIDDEN.strip().splitlines())
def test_what_is_not_the_tenants_is_refused(
    place: Place, alice: redis.Redis, admin: redis.Redis, known: Facts, command: str
) -> None:
    tried = words(place, command)
    if place.private is None and tried[0].lower() not in known.table.names:
        pytest.skip(f"the server of the environment has no {tried[0]}")
    assert tried[0].lower() in known.table.names
    before = stored(place, admin)
    # what a script calls is not tried dry; everything else must be refused before it could harm a server of others
    if known.table.selectors and tried[0] != "EVAL":
        assert admin.execute_command("ACL", "DRYRUN", place.name("alice"), *tried) != "OK"
    with pytest.raises(redis.ResponseError) as caught:
        alice.execute_command(*tried)
    text = str(caught.value)
    # a script's own error tells that the command which it calls was refused
    in_script = "ACL failure in script" in text or "The user executing the script can't" in text
    assert isinstance(caught.value, redis.exceptions.NoPermissionError) or in_script, text
    assert stored(place, admin) == before


def test_the_password_of_one_does_not_open_the_other(place: Place, alice: redis.Redis) -> None:
    assert [place.opens("bob", "alice"), place.opens("alice", "bob"), place.opens("alice", "")] == [False] * 3
    with pytest.raises(redis.AuthenticationError):
        alice.execute_command("AUTH", place.name("bob"), password("alice"))

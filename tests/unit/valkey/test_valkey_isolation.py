# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two tenants on a real server: every access of one to what is the other's is tried and refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import redis
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Facts, Server
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import DesiredUser
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.provider import ValkeyUsers, by_probe
from support.redis_server import RedisServer

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
STORED = {
    "SET bob:s secret": "string",
    "HSET bob:h f v": "hash",
    "RPUSH bob:l a b": "list",
    "SADD bob:set a": "set",
    "ZADD bob:z 1 a": "zset",
    "XADD bob:x * f v": "stream",
}


@pytest.fixture(scope="module")
def tenants(running: RedisServer) -> Iterator[None]:
    login = Server(running.host, running.port, user=running.user, password=running.password)
    desired = [
        DesiredUser(name, name, (hashlib.sha256(name.encode()).hexdigest(),), prefix=name) for name in ("alice", "bob")
    ]
    assert not reconcile(ValkeyUsers(login, by_probe), desired)["failed"]
    with running.client("bob", "bob") as bob:
        for command in STORED:
            bob.execute_command(*command.split(" "))
    yield
    assert not reconcile(
        ValkeyUsers(login, by_probe), [DesiredUser(name, name, state="absent") for name in ("alice", "bob")]
    )["failed"]


@pytest.fixture
def alice(running: RedisServer, tenants: None) -> Iterator[redis.Redis]:
    with running.client("alice", "alice") as client:
        client.execute_command("SET", "alice:s", "v")
        client.execute_command("DEL", "alice:l")
        client.execute_command("RPUSH", "alice:l", "a", "b")
        yield client


def test_a_tenant_can_work_with_its_own(alice: redis.Redis) -> None:
    for command in OWN.strip().splitlines():
        alice.execute_command(*command.split(" "))


def snapshot(admin: redis.Redis) -> dict[str, bytes]:
    keys = sorted(key for key in admin.scan_iter("bob:*"))
    return {key: admin.execute_command("TYPE", key) for key in keys}


@pytest.mark.parametrize("command", FORBIDDEN.strip().splitlines())
def test_what_is_not_the_tenants_is_refused(
    running: RedisServer, alice: redis.Redis, admin: redis.Redis, known: Facts, command: str
) -> None:
    words = command.split(" ")
    assert words[0].lower() in known.table.names
    before = snapshot(admin)
    with pytest.raises(redis.ResponseError) as caught:
        alice.execute_command(*words)
    text = str(caught.value)
    # a script's own error tells that the command which it calls was refused
    in_script = "ACL failure in script" in text or "The user executing the script can't" in text
    assert isinstance(caught.value, redis.exceptions.NoPermissionError) or in_script, text
    assert snapshot(admin) == before
    with running.client("bob", "bob") as bob:
        assert bob.get("bob:s") == "secret"


def test_the_password_of_one_does_not_open_the_other(running: RedisServer, alice: redis.Redis) -> None:
    for user, password in (("bob", "alice"), ("alice", "bob"), ("default", ""), ("default", "alice")):
        with running.client(user, password) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    with pytest.raises(redis.AuthenticationError):
        alice.execute_command("AUTH", "bob", "alice")

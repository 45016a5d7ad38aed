"""Ways out."""

import json
import os
import socket
import urllib.error
import urllib.request

from main import Blocked


def reach(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as connection:
        connection.settimeout(2)
        connection.connect(address)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(10)


def attack_ipv4(p):
    return reach(socket.AF_INET, ("127.0.0.1", p["port"]))


def control_ipv4(p):
    import ipaddress

    assert ipaddress.ip_address("127.0.0.1").is_loopback


def attack_ipv6(p):
    return reach(socket.AF_INET6, ("::1", p["port6"]))


def control_ipv6(p):
    assert socket.inet_pton(socket.AF_INET6, "::1")[-1] == 1


def attack_udp(p):
    return reach(socket.AF_INET, ("127.0.0.1", p["udp"]), socket.SOCK_DGRAM)


def control_udp(p):
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.send(b"x")
    assert two.recv(10) == b"x"


def attack_dns(p):
    # Data leaves in the names that are asked for.
    question = b"\x07\x07\x01\0\0\x01\0\0\0\0\0\0\x06secret\x07example\0\0\x01\0\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(2)
        connection.sendto(question, ("127.0.0.1", p["udp"]))
        return connection.recv(10)


def control_dns(p):
    assert socket.getaddrinfo("127.0.0.1", 80, proto=socket.IPPROTO_TCP)[0][4] == ("127.0.0.1", 80)


def attack_unix(p):
    return reach(socket.AF_UNIX, p["unix"])


def control_unix(p):
    one, two = socket.socketpair()
    one.sendall(b"x")
    assert two.recv(10) == b"x"


def attack_abstract(p):
    return reach(socket.AF_UNIX, "\0" + p["abstract"])


def control_abstract(p):
    one, two = socket.socketpair(socket.AF_UNIX)
    read, write = os.pipe()
    socket.send_fds(one, [b"x"], [read])
    os.write(write, b"y")
    message, files, _, _ = socket.recv_fds(two, 10, 1)
    assert os.read(files[0], 1) == b"y"


def attack_listen(p):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        return server.getsockname()


def control_listen(p):
    import http.client

    assert http.client.responses[200] == "OK"


def attack_raw(p):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def control_raw(p):
    assert socket.htons(1) in (1, 256)


def attack_netlink(p):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as connection:
        connection.bind((0, 0))


def control_netlink(p):
    import uuid

    assert uuid.uuid4()


def attack_vsock(p):
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()


def control_vsock(p):
    assert socket.has_ipv6 in (True, False)


def attack_packet(p):
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def control_packet(p):
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.send(b"x")
    assert two.recv(10) == b"x"


# What follows has a proxy that leads to one server.


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=4) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise Blocked(f"{error.code}: {error.read().decode()}") from error


def allowed(p):
    answer = json.loads(get(f"http://127.0.0.1:{p['allowed']}/own?x=1"))
    assert answer["path"] == "/own?x=1", answer


def attack_proxy_other_port(p):
    return get(f"http://127.0.0.1:{p['port']}/")


control_proxy_other_port = lambda p: allowed(p)


def attack_proxy_metadata(p):
    return get("http://169.254.169.254/latest/meta-data/")


control_proxy_metadata = lambda p: allowed(p)


def attack_proxy_spelling(p):
    for host in ["2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "localhost"]:
        try:
            return get(f"http://{host}:{p['port']}/")
        except Blocked as error:
            last = error
    raise last


def control_proxy_spelling(p):
    assert "/x" in get(f"http://2130706433:{p['allowed']}/x")


def attack_proxy_redirect(p):
    return get(f"http://127.0.0.1:{p['allowed']}/redirect?to=http://127.0.0.1:{p['port']}/")


def control_proxy_redirect(p):
    own = f"http://127.0.0.1:{p['allowed']}"
    assert "/own" in get(f"{own}/redirect?to={own}/own")


def attack_proxy_rebinding(p):
    # A name that the package may use, and that leads inside.
    return get(f"http://localhost:{p['named']}/")


control_proxy_rebinding = lambda p: allowed(p)


def through_proxy(head):
    with socket.create_connection(("127.0.0.1", 3128), timeout=4) as connection:
        connection.sendall(head.encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
        return answer.decode()


def attack_proxy_tunnel(p):
    answer = through_proxy(f"CONNECT 127.0.0.1:{p['port']} HTTP/1.1\r\n\r\n")
    if " 200 " not in answer.split("\r\n")[0]:
        raise Blocked(answer)


def control_proxy_tunnel(p):
    with socket.create_connection(("127.0.0.1", 3128), timeout=4) as connection:
        connection.sendall(f"CONNECT 127.0.0.1:{p['allowed']} HTTP/1.1\r\n\r\n".encode())
        assert b" 200 " in connection.recv(4096)
        connection.sendall(b"GET /tunnel HTTP/1.0\r\n\r\n")
        assert b"/tunnel" in connection.recv(4096)


def attack_proxy_host_header(p):
    head = f"GET http://127.0.0.1:{p['allowed']}/ HTTP/1.1\r\nHost: intern\r\n\r\n"
    answer = through_proxy(head)
    if '"host": "intern"' not in answer:
        raise Blocked(answer[-80:])


control_proxy_host_header = lambda p: allowed(p)


def attack_proxy_user(p):
    return get(f"http://127.0.0.1:{p['allowed']}@127.0.0.1:{p['port']}/")


control_proxy_user = lambda p: allowed(p)


def attack_proxy_second_request(p):
    first = f"GET http://127.0.0.1:{p['allowed']}/ HTTP/1.1\r\nHost: a\r\n\r\n"
    second = f"GET http://127.0.0.1:{p['port']}/secret HTTP/1.1\r\nHost: b\r\n\r\n"
    answer = through_proxy(first + second)
    if "host loopback" not in answer:
        raise Blocked("only the first was answered")


control_proxy_second_request = lambda p: allowed(p)


def attack_proxy_plain_path(p):
    answer = through_proxy("GET /etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    if " 400 " in answer:
        raise Blocked(answer)
    return answer


control_proxy_plain_path = lambda p: allowed(p)


def attack_around_proxy(p):
    return reach(socket.AF_INET, ("127.0.0.1", p["port"]))


control_around_proxy = lambda p: allowed(p)


def attack_udp_beside_proxy(p):
    return reach(socket.AF_INET, ("127.0.0.1", p["udp"]), socket.SOCK_DGRAM)


control_udp_beside_proxy = lambda p: allowed(p)

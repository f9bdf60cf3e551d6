"""CONNECT as the options say it, and what CONNACK granted (MQTT 5.0, 3.1 and 3.2; 3.1.1 has the first half). Pure."""

from edge.mqtt import packets
from edge.mqtt.codes import V5
from edge.mqtt.events import Connected, Options
from edge.mqtt.properties import NONE, PacketProperties

RECEIVE_MAXIMUM_UNSAID = 65535
QOS_MAXIMUM_UNSAID = 2


def connect_packet(options: Options, client_id: str, *, clean: bool) -> packets.Connect:
    """client_id: as the server assigned it, where it did."""
    v5, will = options.version == V5, None
    if options.will is not None:
        delay = PacketProperties(will_delay_s=options.will.delay_s) if v5 and options.will.delay_s else NONE
        will = packets.ConnectWill(
            options.will.topic, options.will.payload, options.will.qos, options.will.retain, delay
        )
    asked = NONE
    if v5:
        asked = PacketProperties(
            session_expiry_s=options.session_expiry_s or None,
            receive_maximum=options.receive_maximum,
            packet_bytes_max=options.packet_bytes_max,
            topic_alias_maximum=options.topic_alias_maximum or None,
            request_response_information=1 if options.request_response_information else None,
            authentication_method=options.authentication_method,
            authentication_data=options.authentication_data,
        )
    return packets.Connect(
        client_id, options.version, clean, options.keepalive_s, will, options.username, options.password, asked
    )


def granted(packet: packets.Connack, options: Options, client_id: str) -> Connected:
    """What holds on a connection that was accepted: the server's word, where it says nothing what was asked for or what
    the standard lays down."""
    found = packet.properties
    return Connected(
        session_present=packet.session_present,
        client_id=found.assigned_client_id or client_id,
        keepalive_s=options.keepalive_s if found.server_keepalive_s is None else found.server_keepalive_s,
        session_expiry_s=options.session_expiry_s if found.session_expiry_s is None else found.session_expiry_s,
        receive_maximum=found.receive_maximum or RECEIVE_MAXIMUM_UNSAID,
        packet_bytes_max=found.packet_bytes_max,
        qos_maximum=QOS_MAXIMUM_UNSAID if found.qos_maximum is None else found.qos_maximum,
        retain_available=found.retain_available != 0,
        wildcard_available=found.wildcard_available != 0,
        shared_available=found.shared_available != 0,
        subscription_ids_available=found.subscription_ids_available != 0,
        topic_alias_maximum=found.topic_alias_maximum or 0,
        response_information=found.response_information,
        server_reference=found.server_reference,
        authentication_data=found.authentication_data,
    )

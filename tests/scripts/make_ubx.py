"""Writes onboard/tests/data/mixed.ubx with pyubx2 and pynmeagps, which are not ours.

Usage: make_ubx.py OUT        (needs pyubx2==1.4.0)
"""
import datetime
import math
import sys

from pynmeagps import NMEAMessage
from pynmeagps import GET as NMEA_GET
from pyubx2 import GET, UBXMessage

START = datetime.datetime(2026, 3, 1, 12, 0, 0)
LATITUDE, LONGITUDE = 52.0116, 4.3571


def epoch(index):
    # The receiver's nanoseconds may be negative: 250 ns before the second.
    nano = -250 if index == 1 else 0
    time = START + datetime.timedelta(seconds=index)
    itow = ((time.weekday() + 1) % 7 * 86400 + time.hour * 3600 + time.minute * 60 + time.second + 18) * 1000
    gone = index * 10 / math.sqrt(2)
    latitude = LATITUDE + gone / 111_267
    longitude = LONGITUDE + gone / (111_320 * math.cos(math.radians(LATITUDE)))
    spoofing = 2 if index in (6, 7) else 1
    jamming = 3 if index == 7 else 1
    good = index != 9
    velocity = round(10_000 / math.sqrt(2))
    messages = [
        UBXMessage("NAV", "NAV-STATUS", GET, iTOW=itow, gpsFix=3, gpsFixOk=int(good), spoofDetState=spoofing),
        UBXMessage(
            "NAV", "NAV-PVT", GET, iTOW=itow, year=time.year, month=time.month, day=time.day, hour=time.hour, min=time.minute, second=time.second,
            validDate=1, validTime=1, fullyResolved=1, tAcc=20, nano=nano, fixType=3, gnssFixOk=int(good), numSV=17, lon=longitude, lat=latitude,
            height=45250, hMSL=2000, hAcc=2828, vAcc=4000, velN=velocity, velE=velocity, velD=0, gSpeed=10000, headMot=45.0, sAcc=100, headAcc=1.0, pDOP=1.2,
        ),
    ]
    if index not in (4, 5):
        messages.append(UBXMessage("NAV", "NAV-COV", GET, iTOW=itow, version=0, posCovValid=1, velCovValid=0, posCovNN=4.0, posCovNE=1.0, posCovND=0.0, posCovEE=9.0, posCovED=0.0, posCovDD=25.0))
    # Version 1: two bits of jamming after the flag, three of spoofing.
    messages.append(UBXMessage("SEC", "SEC-SIG", GET, payload=bytes([1, 0, 0, 0, 1 | jamming << 1, 0, 0, 0, 1 | spoofing << 1, 0, 0, 0])))
    # After NAV-COV and SEC-SIG, the sentences of the same epoch.
    sentences = [
        NMEAMessage("GN", "GGA", NMEA_GET, time=time.time(), lat=latitude, NS="N", lon=longitude, EW="E", quality=1 if good else 0, numSV=12, HDOP=0.8, alt=2.0, altUnit="M", sep=43.2, sepUnit="M"),
        NMEAMessage("GN", "RMC", NMEA_GET, time=time.time(), status="A" if good else "V", lat=latitude, NS="N", lon=longitude, EW="E", spd=19.4, cog=45.0, date=time.date(), posMode="A"),
    ]
    return b"".join(message.serialize() for message in messages + sentences)


def main(out):
    noise = b"\xb5\x62\x01\x07\xff" + bytes(range(1, 20)) + b"$GNGGA,half"
    with open(out, "wb") as file:
        for index in range(10):
            file.write(epoch(index))
            if index == 2:
                # A frame whose checksum is wrong, and half a sentence.
                broken = bytearray(epoch(2)[:100])
                broken[50] ^= 1
                file.write(bytes(broken))
            if index == 3:
                file.write(noise + b"\r\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

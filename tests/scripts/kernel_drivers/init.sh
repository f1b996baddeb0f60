#!/bin/sh
# The first and only program of the machine that tests/scripts/kernel_drivers.py starts. What it finds out goes to
# /out, and from there through the second serial port.
export PATH=/bin
mkdir -p /proc /sys /run /tmp /out
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
say() { echo "$(cut -d' ' -f1 /proc/uptime) $*"; }
status() { crossfixd status --config /etc/crossfixd.toml >"/out/status-$1.json" 2>&1; say "status $1"; }
front() { v4l2-ctl -d /dev/video0 -c "$1"; }

for module in $(cat /etc/modules); do
  # Two cameras, which deliver progressive pictures as webcams do.
  case $module in
    */vivid.ko) insmod "$module" n_devs=2 node_types=0x1,0x1 num_inputs=1,1 input_types=0x0,0x0 vid_cap_nr=0,1 ;;
    *) insmod "$module" ;;
  esac || say "insmod $module failed"
done
ip link set lo up
ip link add dev vcan0 type vcan && ip link set vcan0 up
say "drivers loaded: $(ls /dev/video*)"

v4l2-ctl -d /dev/video0 --list-formats-ext >/out/formats.txt 2>&1
crossfixd --check /etc/crossfixd.toml >/out/check.txt 2>&1
echo "check: $?" >>/out/check.txt
sed -e 's|/dev/video0|/dev/video7|; /video1/,/rate_hz/ s|height = 180|height = 181|' /etc/crossfixd.toml >/etc/wrong.toml
crossfixd --check /etc/wrong.toml >/out/check-wrong.txt 2>&1
echo "check: $?" >>/out/check-wrong.txt
say checked

# By default vivid stamps the end of a frame that it has not begun to draw, ahead of the clock; cameras cannot.
front timestamp_source=1
v4l2-ctl -d /dev/video1 -c timestamp_source=1

# Another program has the rear camera at first.
v4l2-ctl -d /dev/video1 --stream-mmap >/dev/null 2>&1 &
other=$!
nc -ll -p 10110 -e /bin/receiver &
# 8.00 m/s straight on; again when the bus was down.
while :; do cangen vcan0 -g 50 -I 123 -L 2 -D 2003; sleep 0.5; done 2>/dev/null &
while :; do cangen vcan0 -g 50 -I 200 -L 2 -D 0000; sleep 0.5; done 2>/dev/null &
sleep 1
crossfixd run --config /etc/crossfixd.toml >/out/estimates.jsonl 2>/out/log.txt &
daemon=$!
sleep 8
status busy
kill $other
sleep 10
status steady

front inject_v4l2_buf_flag_error=1
sleep 2
status damaged

front percentage_of_dropped_buffers=100
sleep 6
status hanging
front percentage_of_dropped_buffers=0
sleep 8
status hung

echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
ip link set vcan0 down
sleep 4
status unplugged
echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
ip link set vcan0 up
sleep 10
status again
sleep 10
status later

grep -E 'VmHWM|VmRSS|Threads' /proc/$daemon/status >/out/memory.txt
begun=$(cut -d' ' -f1 /proc/uptime)
kill -TERM $daemon
wait $daemon
echo "crossfixd ended with $? between $begun and $(cut -d' ' -f1 /proc/uptime) s" >/out/end.txt
dmesg | tail -n 200 >/out/dmesg.txt
say "sends what it has"
stty -F /dev/ttyS1 raw 2>/dev/null
tar -c -C /out . >/dev/ttyS1
say done
sync
poweroff -f

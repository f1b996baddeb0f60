# A receiver that drives east at 8 m/s, by the machine's clock: RMC, GGA and GST at every full second.
function sentence(body,    i, sum) {
    sum = 0
    for (i = 1; i <= length(body); i++) sum = xor(sum, code[substr(body, i, 1)])
    printf "$%s*%02X\r\n", body, sum
}
BEGIN {
    for (i = 32; i < 127; i++) code[sprintf("%c", i)] = i
    begun = 0
    while (1) {
        now = systime()
        if (now != before) {
            if (!begun) begun = now
            # 52 degrees north: a degree of longitude is 68,678 m on the ellipsoid.
            minutes = 4.5 * 60 + 8 * (now - begun) / 68678 * 60
            east = sprintf("%03d%08.5f,E", int(minutes / 60), minutes % 60)
            clock = strftime("%H%M%S.00", now, 1)
            sentence("GPRMC," clock ",A,5200.00000,N," east ",15.55,90.0," strftime("%d%m%y", now, 1) ",,,A")
            sentence("GPGGA," clock ",5200.00000,N," east ",1,12,0.8,10.0,M,45.0,M,,")
            sentence("GPGST," clock ",1.0,1.0,1.0,0.0,1.0,1.0,2.0")
            fflush()
            before = now
        }
        system("usleep 20000")
    }
}

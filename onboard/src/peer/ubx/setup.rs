//! What a receiver is told to send: UBX-CFG-VALSET into its RAM.

use ublox::cfg_val::CfgVal;
use ublox::packets::cfg_val::{CfgLayerSet, CfgValSetBuilder};

/// Keys that the crate has no name for (UBX-22008968, "CFG-MSGOUT"): UBX-SEC-SIG on UART1 and USB.
const SEC_SIG_KEYS: [u32; 2] = [0x2091_0635, 0x2091_0637];

/// The messages to write to it. SEC-SIG has one of its own: a receiver that does not know it refuses a
/// whole message.
pub fn messages() -> Vec<Vec<u8>> {
    let values = [
        CfgVal::Uart1OutProtUbx(true),
        CfgVal::UsbOutProtUbx(true),
        CfgVal::MsgOutUbxNavPvtUart1(1),
        CfgVal::MsgOutUbxNavPvtUsb(1),
        CfgVal::MsgOutUbxNavCovUart1(1),
        CfgVal::MsgOutUbxNavCovUsb(1),
        CfgVal::MsgOutUbxNavStatusUart1(1),
        CfgVal::MsgOutUbxNavStatusUsb(1),
    ];
    let mut bytes = Vec::new();
    CfgValSetBuilder {
        version: 0,
        layers: CfgLayerSet::RAM,
        reserved1: 0,
        cfg_data: &values,
    }
    .extend_to(&mut bytes);
    vec![bytes, sec_sig()]
}

fn sec_sig() -> Vec<u8> {
    let mut payload = vec![0, 1, 0, 0]; // version 0, layer RAM
    for key in SEC_SIG_KEYS {
        payload.extend(key.to_le_bytes());
        payload.push(1);
    }
    framed(0x06, 0x8a, &payload)
}

/// A UBX frame: the sums of Fletcher's algorithm over class, number, length and payload.
fn framed(class: u8, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xb5, 0x62, class, number];
    frame.extend((payload.len() as u16).to_le_bytes());
    frame.extend(payload);
    let (a, b) = frame[2..].iter().fold((0_u8, 0_u8), |(a, b), byte| {
        let a = a.wrapping_add(*byte);
        (a, b.wrapping_add(a))
    });
    frame.extend([a, b]);
    frame
}

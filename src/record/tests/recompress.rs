//! Batches that change their codec: every record comes out as the bytes that went in, and nothing of the header changes but
//! what has to. What clients make of such batches is tested against a running broker.
//!
//! Not here: the codecs themselves.

use super::*;

/// The rules with this size of a batch.
fn rules(batch_bytes_max: usize) -> ProduceRules {
    ProduceRules { batch_bytes_max, ..RULES }
}

/// Records with everything in them: equal and non-UTF-8 header keys, null and empty fields, no timestamp, an idempotent
/// producer.
fn all_sorts(codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let id = ProducerId::new(77).unwrap();
    let (epoch, base_sequence) = (ProducerEpoch::new(3).unwrap(), Sequence::new(i32::MAX).unwrap());
    builder.set_producer(Some(Producer { id, epoch, base_sequence }));
    append_golden(&mut builder);
    let headers =
        [Header { key: b"\xff\xfe", value: Some(b"\x00") }, Header { key: b"\xff\xfe", value: None }, header("", None)];
    builder.append(Some(at(1_700_000_000_050)), Some(b"\xc0"), None, &headers);
    builder.append(None, None, None, &[]);
    builder.finish().unwrap().unwrap().to_vec()
}

/// The records of a batch as they lie uncompressed, byte for byte.
fn plain(batch: &RecordBatch<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut decompressors = Decompressors::new();
    match decompressors.unpack(batch.codec(), batch.records(), &DecompressLimits::DEFAULT) {
        Some(mut unpacked) => unpacked.drain(&mut out).unwrap(),
        None => out.extend_from_slice(batch.records()),
    }
    out
}

fn recompressed(bytes: &[u8], to: Compression, rules: &ProduceRules) -> Result<Vec<u8>, RecompressError> {
    let mut decompressors = Decompressors::new();
    let produced = validate_produce(bytes, at(NOW), rules, &mut decompressors).unwrap();
    let take = |batch: &ProducedBatch<'_>| batch.bytes().to_vec();
    Recompressor::new().recompressed(&produced, to, rules, &mut decompressors, take)
}

#[test]
fn every_codec_becomes_every_other_and_the_records_stay() {
    for from in Codec::ALL {
        let original = all_sorts(from);
        let before = checked(&original);
        for to in Codec::ALL {
            let packed = recompressed(&original, Compression::new(to), &rules(1 << 20)).unwrap();
            let after = checked(&packed);
            assert_eq!((after.codec(), plain(&after)), (to, plain(&before)), "{from} to {to}");
            let mut expected = *before.header();
            let (now, header) = (*after.header(), &mut expected);
            header.batch_length = now.batch_length;
            header.attributes.set(Attributes::new(to).bits());
            header.crc = now.crc;
            assert_eq!(now, expected, "{from} to {to}");
            // Whoever validates it again finds the same batch.
            assert_eq!(validate(&packed).unwrap().producer(), validate(&original).unwrap().producer());
        }
    }
}

#[test]
fn a_packed_batch_is_stamped_as_the_original_would_be() {
    let original = all_sorts(Codec::Gzip);
    let mut decompressors = Decompressors::new();
    for timestamp_type in [TimestampType::Create, TimestampType::LogAppend] {
        let rules = ProduceRules { timestamp_type, ..rules(1 << 20) };
        let produced = validate_produce(&original, at(NOW), &rules, &mut decompressors).unwrap();
        let stamp = produced.stamp(Offset::new(100).unwrap(), LeaderEpoch::new(4).unwrap());
        let mut stamped = Recompressor::new()
            .recompressed(&produced, Compression::new(Codec::Zstd), &rules, &mut decompressors, |batch| {
                assert_eq!(batch.stamp(Offset::new(100).unwrap(), LeaderEpoch::new(4).unwrap()), stamp);
                assert_eq!((batch.record_count(), batch.max_timestamp()), (5, produced.max_timestamp()));
                batch.bytes().to_vec()
            })
            .unwrap();
        stamp.apply(&mut stamped);
        let batch = checked(&stamped);
        assert_eq!((batch.base_offset().value(), batch.last_offset().value()), (100, 104));
        assert_eq!(batch.attributes().timestamp_type(), timestamp_type);
        let max = if timestamp_type == TimestampType::Create { 1_700_000_005_000 } else { NOW };
        assert_eq!(batch.max_timestamp(), Some(at(max)));
        assert_eq!(plain(&batch), plain(&checked(&original)));
    }
}

#[test]
fn the_size_counts_again_in_the_other_codec() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.append(Some(at(NOW)), None, Some(&b"again ".repeat(10_000)), &[]);
    let original = builder.finish().unwrap().unwrap().to_vec();
    let rules = rules(original.len() + 100);
    let none = Compression::new(Codec::None);
    let error = recompressed(&original, none, &rules).expect_err("60 KB do not fit");
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
    assert!(matches!(error, RecompressError::TooLarge { found: 60_000.., .. }), "{error}");
    let whole = recompressed(&original, none, &RULES).unwrap();
    let exact = ProduceRules { batch_bytes_max: whole.len(), ..rules };
    assert_eq!(recompressed(&original, none, &exact), Ok(whole.clone()));
    let less = ProduceRules { batch_bytes_max: whole.len() - 1, ..rules };
    assert!(matches!(recompressed(&original, none, &less), Err(RecompressError::TooLarge { .. })));
}

#[test]
fn a_higher_level_packs_smaller() {
    let mut builder = BatchBuilder::new(Codec::None);
    let text: String = (0..20_000).map(|number| format!("{} of {} ", number * 7919 % 10_007, number)).collect();
    builder.append(Some(at(NOW)), None, Some(text.as_bytes()), &[]);
    let original = builder.finish().unwrap().unwrap().to_vec();
    let bytes = |to| recompressed(&original, to, &rules(1 << 20)).unwrap().len();
    assert!(bytes(Compression::gzip(9)) < bytes(Compression::gzip(1)));
    assert!(bytes(Compression::zstd(19)) < bytes(Compression::zstd(1)));
    assert_eq!(bytes(Compression::new(Codec::Gzip)), bytes(Compression::gzip(6)), "gzip's own level");
    assert_eq!(bytes(Compression::new(Codec::Zstd)), bytes(Compression::zstd(3)), "zstd's own level");
}

#[test]
fn one_recompressor_serves_batch_after_batch_at_any_level() {
    let mut decompressors = Decompressors::new();
    let mut recompressor = Recompressor::new();
    let original = all_sorts(Codec::Lz4);
    let produced = validate_produce(&original, at(NOW), &rules(1 << 20), &mut decompressors).unwrap();
    let targets = [Compression::gzip(1), Compression::gzip(9), Compression::zstd(-5), Compression::zstd(22)];
    for to in targets.into_iter().chain(Codec::ALL.map(Compression::new)).cycle().take(40) {
        let take = |batch: &ProducedBatch<'_>| batch.bytes().to_vec();
        let packed = recompressor.recompressed(&produced, to, &rules(1 << 20), &mut decompressors, take).unwrap();
        assert_eq!(plain(&checked(&packed)), plain(&checked(&original)), "{to:?}");
    }
}

proptest! {
    #[test]
    fn any_records_survive(
        records in prop::collection::vec(
            (
                prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
                prop::collection::vec(
                    (prop::collection::vec(any::<u8>(), 0..5), prop::option::of(prop::collection::vec(any::<u8>(), 0..9))),
                    0..4,
                ),
            ),
            1..30,
        ),
        from in prop::sample::select(&Codec::ALL[..]),
        to in prop::sample::select(&Codec::ALL[..]),
    ) {
        let mut builder = BatchBuilder::new(from);
        for (key, value, headers) in &records {
            let headers: Vec<_> =
                headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
            builder.append(Some(at(NOW)), key.as_deref(), value.as_deref(), &headers);
        }
        let original = builder.finish().unwrap().unwrap().to_vec();
        let packed = recompressed(&original, Compression::new(to), &rules(1 << 20)).unwrap();
        prop_assert_eq!(plain(&checked(&packed)), plain(&checked(&original)));
    }
}

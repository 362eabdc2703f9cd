//! What comes before the first turn and after the last: the table, and what has to hold once nothing goes wrong any more.
//!
//! Neighbours: `run` decides whose turn it is.

use super::*;

impl Run<'_> {
    pub(super) fn create(&mut self) {
        let table = self.profile.table();
        let (ports, ..) = ports_of(&self.world, &Arc::new(Desk::default()), 0, 1);
        drop(ports);
        let schema = table.schema(START_MS).unwrap_or_else(|e| panic!("{e}"));
        let location = TableLocation::new(&self.at.location()).unwrap_or_else(|e| panic!("{e}"));
        let schema = Arc::new(schema);
        let context = TableContext::new(location, schema.clone()).unwrap_or_else(|e| panic!("{e}"));
        let layout = FileLayout::new(schema).unwrap_or_else(|e| panic!("{e}"));
        self.world.watch(Simulated { at: self.at.clone(), context, layout });
        now(self.world.streams().create(STREAM, self.profile.shards)).unwrap_or_else(|e| panic!("{e}"));
        let settings = MappingSettings {
            uuid: "mapping".to_owned(),
            stream_arn: ARN.to_owned(),
            state: "Enabled".to_owned(),
            parallelization_factor: Some(1),
            maximum_retry_attempts: Some(-1),
            maximum_record_age_seconds: Some(-1),
            starting_position: Some(StartingPosition::TrimHorizon),
            ..MappingSettings::default()
        };
        self.mappings.set(actors::INGEST, vec![settings]);
        let (at, mappings) = (self.at.clone(), self.mappings.clone());
        self.alone(move |ports| {
            async move {
                catalog::create(&ports, &at, &table).await?;
                let format = Format::Json;
                let decoder = DecoderConfig { format, op_field: Some("op".to_owned()), ..DecoderConfig::default() };
                Feed { stream_arn: ARN.to_owned(), decoder }.save(&ports, &at).await?;
                maintain::check_mapping(&ports, &at, mappings.as_ref(), actors::INGEST).await
            }
            .boxed()
        });
        self.mapping.refresh(self.world.streams());
    }

    /// Runs something that must succeed with nobody beside it and nothing going wrong.
    pub(super) fn alone<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Ports) -> BoxFuture<'static, Result<T, TableError>>,
    ) -> T {
        self.try_alone(work).unwrap_or_else(|e| panic!("invariant 23: with nothing going wrong: {e}"))
    }

    pub(super) fn try_alone<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Ports) -> BoxFuture<'static, Result<T, TableError>>,
    ) -> Result<T, TableError> {
        let seed = self.chance.of(Decision::Ids, u64::MAX - self.history.turns).draw();
        actors::alone(&self.world, seed, work)
    }

    pub(super) fn finish(&mut self) {
        let at = self.at.clone();
        // Another engine may have taken the name of a compaction that nobody has published yet.
        let settled = self.try_alone(|ports| actors::repair(ports, at).boxed());
        if settled.is_err_and(|error| error.kind() == ErrorKind::Forked) {
            let at = self.at.clone();
            self.alone(|ports| actors::repair(ports, at).boxed());
        }
        let (at, mappings) = (self.at.clone(), self.mappings.clone());
        let report = self.alone(move |ports| actors::maintain(ports, at, mappings, false, i64::MAX).boxed());
        assert!(report.failures.is_empty(), "invariant 23: with nothing going wrong: {:?}", report.failures);
        self.world.check();
        let at = self.at.clone();
        let found = self.alone(move |ports| {
            async move {
                let table = Table::open(&ports, &at, Authority::Pointer, Purpose::Read).await?;
                let checked = check::check(&table).await?;
                let deep = check::deep(&table, &checked, |_| ()).await?;
                let mut rows = Vec::new();
                scan(&table, &ScanRequest::default(), |row| {
                    rows.push(row.values);
                    true
                })
                .await?;
                let findings: Vec<_> = checked.findings.into_iter().chain(deep.findings).collect();
                Ok((findings, rows, quarantine::read(&table).await?.records))
            }
            .boxed()
        });
        let (findings, rows, quarantined) = found;
        let errors: Vec<_> =
            findings.iter().filter(|f| f.severity == siltstone_commit::protocol::Severity::Error).collect();
        assert!(errors.is_empty(), "check: {errors:?}");
        self.compare_rows(&rows);
        self.compare_quarantine(&quarantined);
    }

    /// What a reader sees at the end: each key's last record, and the rows of other engines.
    pub(super) fn compare_rows(&self, rows: &[Vec<siltstone_format::value::Value>]) {
        use siltstone_format::value::Value;
        let (mut found, mut theirs) = (BTreeMap::new(), BTreeSet::new());
        for row in rows {
            match row.as_slice() {
                [Value::Int(key), Value::Int(0), Value::BigInt(number)] => {
                    let double = found.insert(*key, *number);
                    assert!(double.is_none(), "2: key {key} is read twice");
                }
                [Value::Int(_), Value::Int(1), Value::BigInt(number)] => drop(theirs.insert(number.unsigned_abs())),
                other => panic!("2: a row that nobody wrote: {other:?}"),
            }
        }
        let expected = self.world.oracle(|oracle| {
            let mut expected = BTreeMap::new();
            for record in oracle.records() {
                match record.says {
                    Says::Upsert => drop(expected.insert(record.key, i64::try_from(record.number).unwrap_or(-1))),
                    Says::Delete => drop(expected.remove(&record.key)),
                    Says::Bad => {}
                }
            }
            expected
        });
        assert_eq!(Some(found), expected, "invariant 2: what a scan reads at the end");
        assert!(
            self.foreign_known.is_subset(&theirs),
            "8: of rows {:?} of others, {theirs:?} are there",
            self.foreign_known
        );
    }

    pub(super) fn compare_quarantine(&self, quarantined: &[siltstone_decode::quarantine::QuarantinedRecord]) {
        let mut found = BTreeSet::new();
        for record in quarantined {
            let text: serde_json::Value = serde_json::from_slice(&record.data).unwrap_or_default();
            let number = text["n"].as_u64();
            let new = number.is_some_and(|number| found.insert(number));
            assert!(new, "invariant 1: quarantine holds record {number:?} twice, or what nobody sent");
        }
        let expected = self.world.oracle(|oracle| oracle.bad_numbers());
        assert_eq!(Some(found), expected, "invariant 1: the quarantine at the end");
    }
}
